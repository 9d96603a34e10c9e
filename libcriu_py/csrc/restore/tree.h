/*
 * The directory of a snapshot, the way to it and the files in it, opened by descriptors and without following links:
 * what was checked is what is used (libcriu_py/snapshot/trust.py).
 */
#ifndef LIBCRIU_PY_TREE_H
#define LIBCRIU_PY_TREE_H

#include <sys/stat.h>

struct problem;

/*
 * Open the directory of a path without symbolic links for a reader: it is not removed until it is closed or released,
 * also where another snapshot takes its place. A descriptor; -1, and the problem says what another user could do; or
 * -errno - 1.
 */
int lcp_tree_open(const char *path, struct problem *problem);
/* Let others remove it. */
void lcp_tree_release(int directory);
/* Whether the directory that is open is still the one of that path. */
int lcp_tree_is_at(int directory, const char *path);

/*
 * Refuse what is open, `path` and `name` for the message, if another ordinary user could have written it; 0 or -1.
 */
int lcp_tree_refuse(int fd, const char *path, const char *name, struct stat *status, struct problem *problem);
/* The same of what somebody has opened in a directory and asked the kernel about already. */
int lcp_tree_refuse_status(const struct stat *status, const char *path, const char *name, struct problem *problem);

/*
 * Say, as a problem, what another ordinary user could do to a program that root runs; 0 where it is root's alone, or this is
 * not root, or -1.
 */
int lcp_tree_refuse_program(const char *path, struct problem *problem);

#endif
