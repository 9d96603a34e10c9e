/*
 * The conventional start of a program.
 */
#ifndef LCP_CONVENTIONAL_H
#define LCP_CONVENTIONAL_H

#define NO_CHECKPOINT "LIBCRIU_PY_CONVENTIONAL=" /* and the pid of what is started */

/* Find a program as execvp(3) does; NULL if it is nowhere. Another call may overwrite what is returned. */
const char *lcp_find_on_path(const char *name);
/* Put a command, whose program is found on PATH, and its arguments together; NULL if there is no memory. */
char **lcp_conventional_argv(char *const *command, char *const *arguments);
/*
 * Return the environment for it. A program that takes its own checkpoint shall only do its work, without a new snapshot.
 */
char **lcp_conventional_env(char *const *env, int is_of_main);
/* Start it, without the placeholders of standard streams. Returns only if that failed. */
void lcp_start_conventionally(char *const *argv, char *const *env);

#endif
