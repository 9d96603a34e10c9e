/*
 * What a function gives back wherever it returns: variables that are closed or freed at the end of their block.
 */
#ifndef LCP_CLEANUP_H
#define LCP_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO_CLOSE __attribute__((cleanup(lcp_cleanup_fd)))
#define AUTO_FREE __attribute__((cleanup(lcp_cleanup_memory)))
#define AUTO_FCLOSE __attribute__((cleanup(lcp_cleanup_stream)))
#define AUTO_CLOSEDIR __attribute__((cleanup(lcp_cleanup_directory)))

/* errno stays what the caller is to see. */
static inline void lcp_cleanup_fd(const int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void lcp_cleanup_memory(void *variable)
{
	free(*(void **)variable);
}

static inline void lcp_cleanup_stream(FILE *const *stream)
{
	if (*stream)
		fclose(*stream);
}

static inline void lcp_cleanup_directory(DIR *const *directory)
{
	if (*directory)
		closedir(*directory);
}

/* Take a descriptor out of such a variable, to be kept. */
static inline int lcp_keep_fd(int *fd)
{
	int kept = *fd;

	*fd = -1;
	return kept;
}

#endif
