#define _GNU_SOURCE
#include "launcher/learning.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/finding.h"

#define NOTED "LIBCRIU_PY_AUTO_LEARN="

/* The module that a conventional start imports first; it notes what the program has imported. */
extern const char learning_begin[], learning_end[];
__asm__(".pushsection .rodata\n"
	"learning_begin: .incbin \"../auto/learning.py\"\n"
	"learning_end: .byte 0\n"
	".popsection");

void lcp_make_directories(const char *path)
{
	char above[PATH_MAX];

	if (!mkdir(path, 0700) || errno != ENOENT)
		return;
	for (size_t i = 1; path[i] && i < sizeof(above) - 1; i++) {
		if (path[i] != '/')
			continue;
		memcpy(above, path, i);
		above[i] = '\0';
		mkdir(above, 0700);
	}
	mkdir(path, 0700);
}

/* Put the module into the cache once; where it is, or NULL. */
static char *learning_directory(const char *base)
{
	size_t size = (size_t)(learning_end - learning_begin);
	static char path[PATH_MAX], new[PATH_MAX];
	char *directory;
	int fd, is_written;

	if (asprintf(&directory, "%s/learn-%016" PRIx64, base, lcp_hash(learning_begin)) < 0)
		return NULL;
	snprintf(path, sizeof(path), "%s/sitecustomize.py", directory);
	if (!access(path, R_OK))
		return directory;
	lcp_make_directories(directory);
	snprintf(new, sizeof(new), "%s/new.%d", directory, (int)getpid());
	fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	is_written = fd >= 0 && write(fd, learning_begin, size) == (ssize_t)size;
	if (fd >= 0)
		close(fd);
	if (is_written && !rename(new, path))
		return directory;
	unlink(new);
	free(directory);
	return NULL;
}

/* Return a copy of an environment, with a place behind it; NULL if no memory is left. */
static char **copy_env(char **env, size_t *count)
{
	char **copy;

	for (*count = 0; env[*count];)
		++*count;
	copy = calloc(*count + 3, sizeof(*copy));
	return copy ? memcpy(copy, env, *count * sizeof(*copy)) : NULL;
}

char **lcp_env_with_entry(char **env, const char *entry)
{
	size_t count, at = 0;
	char **copy = copy_env(env, &count), *note;

	if (!copy || asprintf(&note, NOTED "%s", entry) < 0)
		return env;
	while (at < count && strncmp(copy[at], NOTED, strlen(NOTED)))
		at++;
	copy[at] = note;
	return copy;
}

char **lcp_learning_env(char **env, const char *base, const char *entry)
{
	const char *own = getenv("PYTHONPATH");
	char *directory = own && !*own ? NULL : learning_directory(base); /* an empty one could not be put back */
	char **copy, *path, *note;
	size_t count;

	copy = directory ? copy_env(env, &count) : NULL;
	if (!copy)
		return env;
	if (asprintf(&path, "PYTHONPATH=%s%s%s", directory, own ? ":" : "", own ? own : "") < 0 ||
	    asprintf(&note, NOTED "%s", entry) < 0)
		return env;
	for (size_t i = 0; i < count; i++) /* in the place of the other: the program sees the order */
		if (own && env[i] + strlen("PYTHONPATH=") == own)
			copy[i] = path;
	copy[count++] = note;
	if (!own)
		copy[count] = path;
	return copy;
}
