/*
 * Launch scripts (libcriu_py/copies/launch_script.py).
 */
#ifndef LCP_SCRIPT_H
#define LCP_SCRIPT_H

struct launch;
struct problem;

/* The options and the conventional command of a launch script. */
struct script {
	char *text;
	char **command;          /* NULL: that of the snapshot */
	char *directory;
	char *path;              /* of an interpreter's script, from the root */
	int is_interpreter;      /* it is the python of a directory */
	int is_named;            /* and Python names itself as the script */
};
int lcp_script_read(struct script *script, struct launch *launch, struct problem *problem);

#endif
