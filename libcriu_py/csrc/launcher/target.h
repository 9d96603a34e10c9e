/*
 * Which Python program a command line names, and which interpreter runs it.
 */
#ifndef LCP_TARGET_H
#define LCP_TARGET_H

#include <limits.h>
#include <stddef.h>

struct target {
	const char *kind;      /* "script", "module" or "tool"; NULL: no program that can be snapshotted */
	char value[PATH_MAX];  /* the absolute path, the module's name, or that of a tool: pytest */
	char python[PATH_MAX]; /* absolute */
	char file[PATH_MAX];   /* as it was found */
	const char *typed;     /* the path, where it is not absolute; else NULL */
	char *conventional[4]; /* the command of a conventional start, NULL-terminated */
	char *const *arguments; /* what follows */
};

/*
 * Find the program of a command line, whose first word is `-m`, the path of a file, or a name on PATH. `own` is the
 * interpreter of what names none itself; NULL: that of this installation. Returns 0, or -1 where there is no such program,
 * whose conventional command is then the first word.
 */
int lcp_target_find(struct target *target, char **words, const char *own);

/*
 * Take the interpreter itself, with the words of its command line. pytest, which runs code of many projects, is started by
 * one that has imported what is of none of them, and that serves each way to start it. Returns 0 or -1.
 */
int lcp_target_take_interpreter(struct target *target, char **words, const char *own);

/* Find the interpreter in the first line of a script; empty if it names none or cannot be read. */
void lcp_find_interpreter(const char *script, char *found, size_t room);

/* The path of libcriu-py-command, which is installed beside this program. */
void lcp_command_path(char path[PATH_MAX]);

#endif
