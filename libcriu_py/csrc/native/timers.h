/*
 * Timers of timer_create(2), noted in the memory of the process, and made again in copies.
 */
#ifndef LCP_NATIVE_TIMERS_H
#define LCP_NATIVE_TIMERS_H

struct scratch;

/* Note where glibc has data of its timers, before threads stand still: it takes a lock. */
void lcp_find_timer_data(void);
/* Note the timers of this process, whose threads stand still, and add them to the facts. */
void lcp_note_timers(struct scratch *scratch);
/* Make them in a copy, whose threads are there; 0 or -errno. */
long lcp_restore_timers(void);

#endif
