/* What a process does to itself. */
#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

void lcp_trim_heap(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

void lcp_exit_now(int status)
{
	fflush(NULL);
	_exit(status);
}

/* The block is kept for good: getenv() hands out pointers into it. */
int lcp_replace_environ(const char *block, size_t size)
{
	size_t count = 0, next = 0;
	char *copy = malloc(size + 1), **entries;

	for (size_t i = 0; i < size; i++)
		count += block[i] == '\0';
	entries = malloc((count + 1) * sizeof(*entries));
	if (!copy || !entries) {
		free(copy);
		free(entries);
		return -ENOMEM;
	}
	memcpy(copy, block, size);
	copy[size] = '\0';
	for (size_t i = 0; i < size; i += strlen(copy + i) + 1)
		entries[next++] = copy + i;
	entries[next] = NULL;
	environ = entries;
	return 0;
}
