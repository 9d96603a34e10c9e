/*
 * Small files, of /proc and /sys for the most part.
 */
#ifndef LCP_FILES_H
#define LCP_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Read what one read returns of a file, which is all of one that the kernel makes at once, as text without the end of
 * its last line; its length or -errno, for which errno is set and the text is empty.
 */
ssize_t lcp_read_text(const char *path, char *text, size_t size);
/*
 * Read a file, below a directory or AT_FDCWD, to its end or to a limit, as text to be freed; NULL with errno.
 */
char *lcp_read_whole(int directory, const char *path, size_t limit);
/* The number in the line `name:` of such a text; 0 if there is none. */
uint64_t lcp_field_number(const char *text, const char *name, int base);
/* Write a text by one write into a file that exists; 0, or -1 with errno. */
int lcp_write_file(const char *path, const char *text);

#endif
