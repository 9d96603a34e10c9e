#define _GNU_SOURCE
#include "launcher/conventional.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "launcher/messages.h"

#define DEFAULT_PATH "/bin:/usr/bin"

const char *lcp_find_on_path(const char *name)
{
	const char *path = getenv("PATH"), *end;
	static char found[PATH_MAX];

	if (strchr(name, '/'))
		return name;
	for (path = path ? path : DEFAULT_PATH;; path = end + 1) {
		end = strchrnul(path, ':');
		if (snprintf(found, sizeof(found), "%.*s%s%s", (int)(end - path), path, end > path ? "/" : "", name) <
			    (int)sizeof(found) && !access(found, X_OK))
			return found;
		if (!*end)
			return NULL;
	}
}

static size_t length(char *const *words)
{
	size_t count = 0;

	while (words[count])
		count++;
	return count;
}

char **lcp_conventional_argv(char *const *command, char *const *arguments)
{
	size_t count = length(command);
	char **argv = calloc(count + length(arguments) + 1, sizeof(*argv));
	const char *found;

	if (!argv)
		return NULL;
	memcpy(argv, command, count * sizeof(*argv));
	memcpy(argv + count, arguments, length(arguments) * sizeof(*argv));
	found = lcp_find_on_path(argv[0]);
	if (found)
		argv[0] = (char *)found;
	return argv;
}

char **lcp_conventional_env(char *const *env, int is_of_main)
{
	static char disabled[sizeof(NO_CHECKPOINT) + 16];
	char **copy = calloc(length(env) + 2, sizeof(*copy));
	size_t count = 0;

	if (!copy)
		return NULL;
	for (; *env; env++)
		if (is_of_main || strncmp(*env, NO_CHECKPOINT, strlen(NO_CHECKPOINT)))
			copy[count++] = *env;
	if (!is_of_main) {
		snprintf(disabled, sizeof(disabled), NO_CHECKPOINT "%d", (int)getpid());
		copy[count] = disabled;
	}
	return copy;
}

void lcp_start_conventionally(char *const *argv, char *const *env)
{
	for (int fd = 0; fd < 3; fd++)
		if (lcp_is_closed(fd))
			close(fd); /* the placeholder */
	execvpe(argv[0], argv, env);
	lcp_say(argv[0], " cannot be started either: ", strerror(errno));
}
