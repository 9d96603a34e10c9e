"""
Mapped memory: restoring large private areas by mapping a file instead of copying their pages.

The images that criu wrote are rewritten after the dump, such that these areas become private mappings of
one immutable file, `memory.img`. See docs/mapped-memory.md.

    wire, imagefile   messages and images, with everything in them that is not known here
    memory            the memory of a process, as its images describe it
    owners            whose memory it is, and so whether a mapping can take its place
    libraries         the libraries among the mapped files, and how long their bss is
    allocators        allocators in them
    plan, rewrite     which memory is mapped from where in the file; the new images
    check             comparing both sets of images
    optimize          all of it, for a directory of images and for a snapshot
    working_set       pages that copies are known to write to, so that these are copied at once
    blocks            writing what is mapped such that the page cache keeps it in large folios
    store, division   blocks of memory that several snapshots share
    learning          running copies to see which these are
"""
