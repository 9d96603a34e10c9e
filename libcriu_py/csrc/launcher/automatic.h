/*
 * `libcriu-py auto` and shims: be the program of a snapshot in this user's cache, which is made, and kept fit, in the
 * background (libcriu_py/auto).
 */
#ifndef LCP_AUTOMATIC_H
#define LCP_AUTOMATIC_H

struct launch;

/*
 * Start the program that these words name, from its snapshot or conventionally; the exit status if that fails. `own` runs
 * what names no interpreter; NULL: that of this installation.
 */
int lcp_automatic(struct launch *launch, const char *own, char **words);
/* Start it conventionally and note what it imports. */
int lcp_automatic_learn(struct launch *launch, const char *own, char **words);
/* The same as the first for the program of a shim, a file whose interpreter line names this program: the first word. */
int lcp_automatic_shim(struct launch *launch, char **words);
/* The same for an interpreter, `own`, that runs pytest: these words are its command line. */
int lcp_automatic_interpreter(struct launch *launch, const char *own, char **words);
/* Print what the first does with words: directory of the cache, kind, value and interpreter. */
int lcp_automatic_tell(const char *own, char **words);

#endif
