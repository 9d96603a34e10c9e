"""
Mapped memory: restoring large private areas by mapping a file instead of copying their pages.

After the dump, criu's images are rewritten so that these areas become private mappings of one immutable file,
`memory.img`. See docs/mapped-memory.md.

    memory            the memory of a process, from its images
    owners            which allocator or library owns an area, and so whether it can be mapped
    pymalloc          recognising CPython's arenas
    libraries         mapped libraries, and the length of their bss
    allocators        finding other allocators in mapped files
    plan, rewrite     choosing what is mapped from where in the file; writing the new images
    check             comparing the old and the new images byte for byte
    optimize          all of that, for a directory of images and for a snapshot
    working_set       pages that copies always write to, and so copy at once
    blocks            writing mapped files in blocks that the page cache keeps in large folios
    store, division   blocks of memory that several snapshots share
"""
