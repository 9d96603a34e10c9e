#define _GNU_SOURCE
#include "launcher/script.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/launch.h"
#include "restore/privilege.h"
#include "restore/problem.h"

#define LARGEST_SCRIPT (4 << 20)
#define TITLE "# libcriu-py launch script, format 2"

static int not_a_script(const struct launch *launch, const char *why, struct problem *problem)
{
	return lcp_unusable(problem, "%s is not a launch script (%s); make it anew with: "
			       "libcriu-py snapshot --script %s ...", launch->script, why, launch->script);
}

/* A relative path starts at the script, so that both can be moved together. */
static int resolve_directory(struct script *script, struct launch *launch, const char *name, struct problem *problem)
{
	const char *slash = strrchr(launch->script, '/');
	int length = slash && name[0] != '/' ? (int)(slash - launch->script) + 1 : 0;

	if (asprintf(&script->directory, "%.*s%s", length, launch->script, name) < 0)
		return not_a_script(launch, "no memory is left", problem);
	launch->directory = script->directory;
	return 0;
}

static int resolve_interpreter(struct script *script, struct launch *launch, int is_named)
{
	char cwd[PATH_MAX] = "", *real = is_named ? NULL : realpath(launch->script, NULL);

	if (real)
		launch->script = real; /* a link to it will do: the snapshot is beside it */
	while (launch->script[0] == '.' && launch->script[1] == '/')
		launch->script += 1 + strspn(launch->script + 1, "/"); /* as Python does */
	if (*launch->script != '/' && !getcwd(cwd, sizeof(cwd)))
		return -1;
	if (asprintf(&script->path, "%s%s%s", cwd, *cwd ? "/" : "", launch->script) < 0)
		return -1;
	script->is_interpreter = launch->quiet = 1;
	script->is_named = is_named;
	launch->executable = is_named ? script->path : NULL;
	return 0;
}

/* Return the text behind the title, or NULL. */
static char *find_text(char *text)
{
	char *at = strstr(text, "\n" TITLE "\n");

	return at ? at + sizeof("\n" TITLE "\n") - 1 : NULL;
}

/* Return the unescaped value of the line `name` and go to the next line; NULL if it is another line, or wrong. */
static char *next_line(char **at, const char *name)
{
	size_t length = strlen(name);
	char *value = *at + length, *end = strchr(*at, '\n'), *from, *to;

	if (!end || strncmp(*at, name, length))
		return NULL;
	for (from = to = value; from < end; from++) {
		if (*from != '\\') {
			*to++ = *from;
			continue;
		}
		if (*++from != '\\' && *from != 'n')
			return NULL;
		*to++ = *from == 'n' ? '\n' : *from;
	}
	*to = '\0';
	*at = end + 1;
	return value;
}

/* Parse `script->text`, of that size and NUL-terminated. */
static int parse_script(struct script *script, struct launch *launch, size_t size, struct problem *problem)
{
	char *at = find_text(script->text), *name, *python, *mode, *word;
	size_t count = 0;

	if (!at)
		return not_a_script(launch, "it is of no known format", problem);
	name = next_line(&at, "snapshot: ");
	if (!name || !*name)
		return not_a_script(launch, "it names no snapshot", problem);
	python = next_line(&at, "python: ");
	if (python && strcmp(python, "given") && strcmp(python, "own"))
		return not_a_script(launch, "an interpreter's name is given, or its own", problem);
	if (python && resolve_interpreter(script, launch, *python == 'g'))
		return not_a_script(launch, "its path cannot be told", problem);
	mode = next_line(&at, "mode: ");
	if (mode && lcp_mode_of(mode) < 0)
		return not_a_script(launch, "there is no such mode", problem);
	launch->mode = mode ? mode : launch->mode;
	/* More words than can be in it. */
	script->command = calloc(size / sizeof("fallback:") + 1, sizeof(*script->command));
	while (script->command && (word = next_line(&at, "fallback: ")))
		script->command[count++] = word;
	if (at != script->text + size)
		return not_a_script(launch, "a line of it says nothing that is known", problem);
	if (!count) {
		free(script->command);
		script->command = NULL;
		if (script->is_interpreter)
			return not_a_script(launch, "it names no interpreter", problem);
	}
	return resolve_directory(script, launch, name, problem);
}

int lcp_script_read(struct script *script, struct launch *launch, struct problem *problem)
{
	AUTO_CLOSE int fd = open(launch->script, O_RDONLY | O_CLOEXEC);
	struct stat status;
	ssize_t size;

	if (fd < 0 || fstat(fd, &status))
		return lcp_unusable(problem, "%s cannot be read: %s", launch->script, strerror(errno));
	if (!S_ISREG(status.st_mode) || status.st_size > LARGEST_SCRIPT)
		return not_a_script(launch, "it is not a small regular file", problem);
	script->text = malloc((size_t)status.st_size + 1);
	size = script->text ? read(fd, script->text, (size_t)status.st_size) : -1;
	if (size < 0)
		return lcp_unusable(problem, "%s cannot be read", launch->script);
	script->text[size] = '\0';
	return parse_script(script, launch, (size_t)size, problem);
}
