#define _GNU_SOURCE
#include "launcher/target.h"

#include <errno.h>
#include <linux/binfmts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/files.h"
#include "launcher/conventional.h"

#define COMMAND "libcriu-py-command" /* of pyproject.toml */
#define PYTEST "pytest"
#define LONG_LINE "'''exec' "        /* what pip and uv write where the kernel would cut the first line */

/* ---- interpreters ------------------------------------------------------ */

/* Read the first line of a script behind its #!; 0 or -1. `rest` is what follows it. */
static int read_first_line(const char *script, char *text, size_t room, char **line, char **rest)
{
	if (lcp_read_text(script, text, room) < 0 || strncmp(text, "#!", 2))
		return -1;
	*line = text + 2 + strspn(text + 2, " \t");
	*rest = *line + strcspn(*line, "\n");
	if (**rest)
		*(*rest)++ = '\0';
	return 0;
}

void lcp_find_interpreter(const char *script, char *found, size_t room)
{
	char text[BINPRM_BUF_SIZE], *line, *rest;

	*found = '\0';
	if (read_first_line(script, text, sizeof(text), &line, &rest))
		return;
	line[strcspn(line, " \t")] = '\0';
	snprintf(found, room, "%s", line);
}

void lcp_command_path(char path[PATH_MAX])
{
	ssize_t size = readlink("/proc/self/exe", path, PATH_MAX - sizeof(COMMAND));
	char *slash;

	path[size > 0 ? size : 0] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, COMMAND);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int is_python(const char *path)
{
	return !strncmp(base_name(path), "python", strlen("python"));
}

/* Whether a script, such as a shim of pyenv, chooses the interpreter at each start. */
static int is_script(const char *path)
{
	char text[3];

	return lcp_read_text(path, text, sizeof(text)) >= 0 && !strncmp(text, "#!", 2);
}

/* Take a path or, by PATH, a name for the interpreter; 0 or -1. */
static int take_python(struct target *target, const char *name)
{
	const char *path = lcp_find_on_path(name);

	if (!path || *path != '/' || !is_python(path) || access(path, X_OK) || (!strchr(name, '/') && is_script(path)))
		return -1;
	snprintf(target->python, sizeof(target->python), "%s", path);
	return 0;
}

/* The one word of a line, cut off there; NULL if there are more. */
static char *only_word(char *line)
{
	char *end = line + strcspn(line, " \t");

	if (end[strspn(end, " \t")])
		return NULL;
	*end = '\0';
	return line;
}

/* The interpreter in a second line such as '''exec' "/a b/python" "$0" "$@"; NULL: it is no such line. */
static char *of_long_line(char *line)
{
	char *end = strstr(line, " \"$0\"");

	if (strncmp(line, LONG_LINE, strlen(LONG_LINE)) || !end)
		return NULL;
	*end = '\0';
	line += strlen(LONG_LINE);
	if (*line == '"' && end > line + 1 && end[-1] == '"') {
		end[-1] = '\0';
		line++;
	}
	return line;
}

/* Find the interpreter that runs a script: 0; 1 where its first line names none; -1 where that is not Python alone. */
static int python_of_script(struct target *target, const char *path)
{
	char text[PATH_MAX + 64], *line, *rest, *word;

	if (read_first_line(path, text, sizeof(text), &line, &rest))
		return 1;
	if (!strcmp(line, "/bin/sh")) {
		word = of_long_line(rest);
	} else {
		size_t program = strcspn(line, " \t");

		/* By way of env: whatever is first on PATH. */
		if (program >= 4 && !strncmp(line + program - 4, "/env", 4))
			line += program + strspn(line + program, " \t");
		word = only_word(line);
	}
	return word && !take_python(target, word) ? 0 : -1;
}

/* ---- the program -------------------------------------------------------- */

static int take_own_python(struct target *target, const char *own)
{
	char command[PATH_MAX], found[BINPRM_BUF_SIZE];

	if (!own) {
		lcp_command_path(command);
		lcp_find_interpreter(command, found, sizeof(found));
		own = found;
	}
	return take_python(target, own);
}

/* Whether it is a command that is started by way of `lcp_target_take_interpreter`. */
static int is_pytest(const char *name)
{
	return !strcmp(name, PYTEST) || !strcmp(name, "py.test");
}

static int be_interpreter(struct target *target, char **words)
{
	target->kind = "tool";
	strcpy(target->value, PYTEST);
	target->conventional[0] = target->python;
	target->conventional[1] = NULL;
	target->arguments = words;
	return 0;
}

int lcp_target_take_interpreter(struct target *target, char **words, const char *own)
{
	memset(target, 0, sizeof(*target));
	return take_own_python(target, own) ? -1 : be_interpreter(target, words);
}

static int find_module(struct target *target, char **words, const char *own)
{
	const char *name = words[0][2] ? words[0] + 2 : words[1];

	if (!name || take_own_python(target, own))
		return -1;
	if (is_pytest(name))
		return be_interpreter(target, words);
	target->kind = "module";
	snprintf(target->value, sizeof(target->value), "%s", name);
	target->conventional[0] = target->python;
	target->conventional[1] = "-m";
	target->conventional[2] = target->value;
	target->arguments = words + (words[0][2] ? 1 : 2);
	return 0;
}

static int ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), size = strlen(end);

	return length >= size && !strcmp(text + length - size, end);
}

/* As a shell does, but that the name of a Python file is also found in the working directory. */
static int find_file(struct target *target, const char *word, struct stat *status)
{
	const char *found = strchr(word, '/') ? word : lcp_find_on_path(word);

	if (!found && ends_with(word, ".py"))
		found = word;
	return found && snprintf(target->file, sizeof(target->file), "%s", found) < PATH_MAX ?
		       stat(target->file, status) : -1;
}

/* Make a path absolute without resolving links; 0 or -1. */
static int make_absolute(char absolute[PATH_MAX], const char *path)
{
	char cwd[PATH_MAX];
	int size;

	while (!strncmp(path, "./", 2))
		path += 2;
	if (*path == '/')
		size = snprintf(absolute, PATH_MAX, "%s", path);
	else if (!getcwd(cwd, sizeof(cwd)))
		return -1;
	else
		size = snprintf(absolute, PATH_MAX, "%s/%s", cwd, path);
	return size < PATH_MAX ? 0 : -1;
}

int lcp_target_find(struct target *target, char **words, const char *own)
{
	char *file = target->file;
	int result, is_regular, is_started;
	struct stat status;

	memset(target, 0, sizeof(*target));
	target->arguments = words + 1;
	target->conventional[0] = words[0];
	if (!strncmp(words[0], "-m", 2))
		return find_module(target, words, own);
	if (find_file(target, words[0], &status))
		return -1;
	is_regular = S_ISREG(status.st_mode);
	is_started = is_regular && !access(file, X_OK);
	result = is_regular ? python_of_script(target, file) : 1;
	if (is_started)
		target->conventional[0] = file;
	if (result < 0 || (result > 0 && is_started && !ends_with(file, ".py")))
		return is_started ? 0 : -1; /* another program, or an interpreter with options */
	if (result > 0 && take_own_python(target, own))
		return -1;
	if (!is_started) {
		target->conventional[0] = target->python;
		target->conventional[1] = file;
	}
	if (make_absolute(target->value, file))
		return 0;
	if (is_pytest(base_name(file))) {
		words[0] = file;
		return be_interpreter(target, words);
	}
	target->kind = "script";
	target->typed = *file == '/' ? NULL : file;
	return 0;
}
