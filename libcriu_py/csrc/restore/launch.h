/*
 * The order of a launch, and its result.
 */
#ifndef LCP_LAUNCH_H
#define LCP_LAUNCH_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>
#include "restore/request.h"

struct order;

struct launch {
	const char *directory;
	const char *mode;        /* NULL: the first that works */
	const char *engine;      /* which the snapshot has to be of; NULL: as the variable says */
	const char *script;      /* a launch script, or NULL */
	const char *main;        /* the script as it was typed, where the snapshot has another path; or NULL */
	const char *executable;  /* what an interpreter is to name itself, or NULL */
	char *const *arguments;  /* of the program, NULL-terminated */
	char **env;
	uint64_t blocked;        /* bit n: signal n + 1 was blocked from the start */
	char *const *conventional; /* the command of a conventional start, or NULL */
	char *const *conventional_env;
	char **command;          /* the whole command line where this is libcriu-py, else NULL */
	int no_fallback, quiet;
	int print_request;       /* only print the request */
	int list_mismatches;     /* only print what makes a restore impossible */
	int stop;                /* a native copy stops right before its program goes on, for tests */
	int xfsz_ignored;        /* whether SIGXFSZ was ignored from the start */
	const struct order *order; /* of a caller, or NULL where this process is to be the program */
};

struct restored {
	int channel;       /* events of the supervisor */
	int control;       /* the hand-over's socket */
	int pidfd;
	pid_t pid;         /* as its supervisor sees it */
	pid_t supervisor;  /* our child; 0: that of a pool */
	sigset_t mask;     /* of this process before */
	int parent;        /* of lcp_watch_parent, for a copy with a process between; -1: none */
	int typed_late;    /* a key was, when the program had begun */
	int own_session;   /* the terminal's signals do not reach it by themselves */
	struct inherited_fds inherited; /* passed on, and open here until the program has begun */
};

#endif
