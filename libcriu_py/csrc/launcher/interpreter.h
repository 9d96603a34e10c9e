/*
 * The real interpreter behind a launch script that is the python of a directory (libcriu_py/copies/interpreter.py).
 */
#ifndef LCP_REAL_INTERPRETER_H
#define LCP_REAL_INTERPRETER_H

struct launch;
struct script;

/* Whether no copy is wanted: by a variable, by its path, or since a copy has failed in this process. */
int lcp_interpreter_is_off(const struct script *script);
/* Have a stale snapshot made anew while this process is the interpreter, if its place is this user's. */
void lcp_interpreter_renew(const struct script *script, const struct launch *launch);
/* Start it as what the script names. Returns, with an exit status, only if that failed. */
int lcp_start_interpreter(const struct script *script, const struct launch *launch);

#endif
