#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher.h"

#define LARGEST_SCRIPT (4 << 20)

static int not_a_script(const struct launch *launch, const char *why, struct problem *problem)
{
	return problem_set(problem, SNAPSHOT_UNUSABLE, "%s is not a launch script (%s); make it anew with: "
			   "libcriu-py snapshot --script %s ...", launch->script, why, launch->script);
}

/* Where the JSON text begins: at the first line that begins with a brace. */
static char *find_text(char *text)
{
	char *at = text[0] == '{' ? text : strstr(text, "\n{");

	return at && at[0] == '\n' ? at + 1 : at;
}

/* A relative snapshot is beside the script, so that both can be moved together. */
static int place_directory(struct script *script, struct launch *launch, const char *name, struct problem *problem)
{
	const char *slash = strrchr(launch->script, '/');
	int length = slash && name[0] != '/' ? (int)(slash - launch->script) + 1 : 0;

	if (snprintf(script->directory, sizeof(script->directory), "%.*s%s", length, launch->script, name) >=
	    (int)sizeof(script->directory))
		return not_a_script(launch, "the path of its snapshot is too long", problem);
	launch->directory = script->directory;
	return 0;
}

static int take_values(struct script *script, struct launch *launch, struct problem *problem)
{
	const struct json *root = script->document.root, *mode = json_get(root, "mode"), *fallback = json_get(root, "fallback");
	const char *name = json_string(json_get(root, "snapshot"));

	if (json_integer(json_get(root, "script"), -1) != 1)
		return not_a_script(launch, "it is of no known format", problem);
	if (!name)
		return not_a_script(launch, "it names no snapshot", problem);
	if (mode && mode->type != JSON_NULL) {
		if (!json_string(mode) || mode_of(mode->string) < 0)
			return not_a_script(launch, "there is no such mode", problem);
		launch->mode = mode->string;
	}
	if (fallback && fallback->type != JSON_NULL) {
		if (!all_strings(fallback) || !fallback->count)
			return not_a_script(launch, "its conventional command is none", problem);
		script->command = fallback;
	}
	return place_directory(script, launch, name, problem);
}

/* Take what is in `script->text`, of that size and with a NUL at its end. */
static int take_script(struct script *script, struct launch *launch, size_t size, struct problem *problem)
{
	char *json = find_text(script->text);

	if (!json)
		return not_a_script(launch, "nothing in it names a snapshot", problem);
	if (json_parse(&script->document, json, (size_t)(script->text + size - json)))
		return not_a_script(launch, script->document.error, problem);
	return take_values(script, launch, problem);
}

int script_read(struct script *script, struct launch *launch, struct problem *problem)
{
	int fd = open(launch->script, O_RDONLY | O_CLOEXEC);
	struct stat status;
	ssize_t size;

	if (fd < 0 || fstat(fd, &status)) {
		problem_set(problem, SNAPSHOT_UNUSABLE, "%s cannot be read: %s", launch->script, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (!S_ISREG(status.st_mode) || status.st_size > LARGEST_SCRIPT) {
		close(fd);
		return not_a_script(launch, "it is no small file", problem);
	}
	script->text = malloc((size_t)status.st_size + 1);
	size = script->text ? read(fd, script->text, (size_t)status.st_size) : -1;
	close(fd);
	if (size < 0)
		return problem_set(problem, SNAPSHOT_UNUSABLE, "%s cannot be read", launch->script);
	script->text[size] = '\0';
	return take_script(script, launch, (size_t)size, problem);
}
