/*
 * Launch scripts (libcriu_py/launch_script.py).
 */
#ifndef LIBCRIU_PY_SCRIPT_H
#define LIBCRIU_PY_SCRIPT_H

#include <limits.h>

struct launch;
struct problem;

/* A launch script: the options and the conventional command that are in it (libcriu_py/copies/launch_script.py). */
struct script {
	char *text;
	char **command;          /* NULL: that of the snapshot */
	char directory[2 * PATH_MAX];
};
int lcp_script_read(struct script *script, struct launch *launch, struct problem *problem);

#endif
