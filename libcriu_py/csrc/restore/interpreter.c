#define _GNU_SOURCE
#include "restore/interpreter.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/finding.h"

#define PROGRAM_INTERPRETER 4 /* libcriu_py/snapshot/record.py, _KINDS */
#define LONGEST_OPTION 256

int lcp_is_interpreter(const struct snapshot *snapshot)
{
	return snapshot->facts && snapshot->record->program == PROGRAM_INTERPRETER;
}

/* ---- the command line ------------------------------------------------- */

struct command_line {
	uint64_t fixed;         /* the sum over the options that have to be as they were at the dump */
	char kind;              /* 'c', 'm', or 0 for a script */
	const char *program;    /* NULL: standard input */
};

static int has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Whether a running interpreter can still do what -X asks for (libcriu_py/dump/python_options.py does it). */
static int can_follow(const char *value)
{
	const char *digits = value + sizeof("tracemalloc=") - 1;

	return !strcmp(value, "faulthandler") || !strcmp(value, "tracemalloc") || has_prefix(value, "pycache_prefix=") ||
	       (has_prefix(value, "tracemalloc=") && strspn(digits, "123456789") == 1 && !digits[1]);
}

/* Note the -X of a command line; 0, or -1 for one that is too long. */
static int add_extra(struct command_line *line, const char *value)
{
	char option[LONGEST_OPTION];

	if (can_follow(value))
		return 0;
	if (strlen(value) + sizeof("-X") > sizeof(option))
		return -1;
	strcpy(stpcpy(option, "-X"), value);
	line->fixed += lcp_hash(option);
	return 0;
}

/* Read a word of options; 1 if it names the program, 0 if more may follow, -1 if a copy cannot be what it asks for. */
static int read_options(struct command_line *line, char *const **at)
{
	char option[] = "-?";
	const char *value;

	for (const char *letter = **at + 1; *letter; letter++) {
		option[1] = *letter;
		if (strchr("Buq", *letter))
			continue;
		if (strchr("bdEIOPsSv", *letter)) {
			line->fixed += lcp_hash(option);
			continue;
		}
		if (!strchr("cmWX", *letter))
			return -1;
		value = letter[1] ? letter + 1 : *++*at;
		if (!value)
			return -1; /* it is missing */
		if (*letter == 'X')
			return add_extra(line, value);
		if (*letter == 'W')
			return 0;
		line->kind = *letter;
		line->program = value;
		return 1;
	}
	return 0;
}

static int read_command_line(struct command_line *line, char *const *arguments)
{
	int result = 0;

	for (; *arguments && **arguments == '-' && (*arguments)[1] && !result; arguments++)
		result = (*arguments)[1] == '-' ? -1 : read_options(line, &arguments);
	if (!result && *arguments && strcmp(*arguments, "-"))
		line->program = *arguments;
	return result;
}

/* ---- what the snapshot says ------------------------------------------- */

/* What Python's encodings depend on: the locale's name, but "UTF-8" for the usual ones. */
static const char *locale_class(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
	const char *name = NULL, *end;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && (!name || !*name); i++)
		name = getenv(names[i]);
	if (!name || !*name || !strcmp(name, "C") || !strcmp(name, "POSIX"))
		return "UTF-8"; /* which Python takes for it */
	end = strrchr(name, '.');
	return end && (!strcasecmp(end, ".UTF-8") || !strcasecmp(end, ".UTF8")) ? "UTF-8" : name;
}

/* Its lines are options of the dump, and paths at which nothing was (libcriu_py/dump/python_options.py). */
static int differs(const struct snapshot *snapshot, uint64_t fixed)
{
	const char *line = snapshot_text(snapshot, snapshot->facts->program);
	char text[PATH_MAX];

	for (; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t length = strcspn(line, "\n");

		if (length >= sizeof(text))
			return 1;
		*(char *)mempcpy(text, line, length) = '\0';
		if (*text == '-')
			fixed -= lcp_hash(text);
		else if (*text == '=' ? strcmp(text + 1, locale_class()) : !access(text, F_OK))
			return 1;
	}
	return fixed != 0;
}

/* Whether a file ends as zip files do. */
static int is_archive(const char *path, off_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char end[4];

	return pread(fd, end, sizeof(end), size - 22) == sizeof(end) && !memcmp(end, "PK\5\6", sizeof(end));
}

/* Whether a module of the snapshot could be imported from the directory that is first on sys.path. */
static int hides_modules(const struct snapshot *snapshot, const struct command_line *line)
{
	char place[PATH_MAX];
	struct stat status;

	if (line->program && !line->kind) {
		if (!realpath(line->program, place) || stat(place, &status))
			return 0; /* which is an error in a copy too */
		if (S_ISREG(status.st_mode) && is_archive(place, status.st_size))
			return 1; /* it is not known what is in it */
		if (!S_ISDIR(status.st_mode))
			*strrchr(place, '/') = '\0';
	} else if (!getcwd(place, sizeof(place))) {
		return 1;
	}
	return lcp_finds_modules(snapshot, *place ? place : "/");
}

/* Whether a path of PYTHONPATH is another one in each working directory. */
static int is_relative(const char *path)
{
	while (path && *path) {
		if (*path != '/')
			return 1;
		path = strchr(path, ':');
		if (path && !*++path)
			return 1; /* nothing is the working directory */
	}
	return 0;
}

int lcp_interpreter_is_to_start(const struct snapshot *snapshot, char *const *arguments)
{
	struct command_line line = { 0 };

	if (read_command_line(&line, arguments) < 0 || differs(snapshot, line.fixed))
		return 1;
	return is_relative(getenv("PYTHONPATH")) || lcp_variables_differ(snapshot) || hides_modules(snapshot, &line);
}
