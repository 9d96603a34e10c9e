/*
 * What the launcher says.
 */
#ifndef LCP_MESSAGES_H
#define LCP_MESSAGES_H

/* Write one line to stderr, unless that is closed. */
void lcp_say(const char *first, const char *second, const char *third);

#endif
