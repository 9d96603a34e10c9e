/*
 * How programs are told to note what they import, for the next snapshot.
 */
#ifndef LCP_LEARNING_H
#define LCP_LEARNING_H

/* Make a directory and those above it, for this user alone. */
void lcp_make_directories(const char *path);

/*
 * Return the environment of a conventional start that notes in its entry of the cache at `base` what it imports; without
 * that where it cannot be.
 */
char **lcp_learning_env(char **env, const char *base, const char *entry);

/* Tell pytest its entry: it has a plugin that notes what it imports (libcriu_py/integrations/pytest_warm.py). */
char **lcp_env_with_entry(char **env, const char *entry);

#endif
