/*
 * Timers of this process that send signals.
 */
#ifndef LCP_TIMERS_H
#define LCP_TIMERS_H

/* cdef: begin */

/*
 * Disarm those of setitimer(2) and timer_create(2), and keep what is left of them; how many there are. criu reads what
 * signals are pending before it reads timers (criu/cr-dump.c, dump_one_task): one that expires between is in neither.
 */
int lcp_suspend_timers(void);
/* Arm them again, unless the program has: with what was left, in a copy, else less the time that has passed since. */
void lcp_resume_timers(int in_copy);

/* cdef: end */

#endif
