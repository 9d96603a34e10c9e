/* The launcher's part: behave as the program that was restored. */
#define _GNU_SOURCE
#include "supervise/proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/files.h"
#include "common/process.h"
#include "supervise/events.h"
#include "supervise/parent.h"

/* How long the supervisor may take to report that the program goes on. */
#define NEWS_MS 20

/* A file of /proc about a process as text; "" when that has ended. */
static char *about(pid_t pid, const char *name, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	lcp_read_text(path, text, size);
	return text;
}

pid_t lcp_pid_behind(int pidfd)
{
	char name[32], text[512];
	pid_t pid;

	snprintf(name, sizeof(name), "fdinfo/%d", pidfd);
	pid = (pid_t)lcp_field_number(about(getpid(), name, text, sizeof(text)), "Pid", 10);
	return pid > 0 ? pid : 0; /* -1 once it has ended (fs/pidfs.c, pidfd_show_fdinfo) */
}

static int is_stopped(pid_t pid)
{
	char text[512], *state = strrchr(about(pid, "stat", text, sizeof(text)), ')');

	return state && state[1] == ' ' && (state[2] == 'T' || state[2] == 't');
}

/* Whether a signal would be neither caught nor ignored nor blocked. */
static int has_default(pid_t pid, int sig)
{
	AUTO_FREE char *text = NULL;
	uint64_t special;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	text = lcp_read_whole(AT_FDCWD, path, SIZE_MAX); /* a line before names all groups */
	if (!text)
		return 0;
	special = lcp_field_number(text, "SigBlk", 16) | lcp_field_number(text, "SigIgn", 16) |
		  lcp_field_number(text, "SigCgt", 16);
	return !(special >> (sig - 1) & 1);
}

/*
 * A signal of the terminal reaches the program itself where it is in the same
 * process group; one sent to the launcher's pid is always meant for the program.
 * The hangup goes to the leader of the session alone (drivers/tty/tty_jobctrl.c,
 * tty_signal_session_leader), which a restored program is not in our place.
 *
 * In a session of its own nobody would continue it, so there the kernel drops the
 * stop signals of terminals (get_signal in kernel/signal.c); by default they do
 * what SIGSTOP does. True where SIGSTOP was sent for SIGTSTP.
 */
static int pass_on(int pidfd, const struct signalfd_siginfo *info, int terminal)
{
	int sig = (int)info->ssi_signo;
	int hangup = (sig == SIGHUP || sig == SIGCONT) && getsid(0) == getpid();

	if (sig == SIGCHLD)
		lcp_continue_children(); /* the supervisor; without it no end of the program is told */
	if (sig == SIGCHLD || (info->ssi_code == SI_KERNEL && !terminal && !hangup))
		return 0;
	if (terminal && sig == SIGTSTP && has_default(lcp_pid_behind(pidfd), sig))
		sig = SIGSTOP;
	lcp_pidfd_signal(pidfd, sig);
	return sig == SIGSTOP;
}

/*
 * Stop by the signal that the shell is to see: bash has status 148 for Ctrl-Z, and 147 for SIGSTOP. Where nobody would
 * continue us the kernel drops it, but not SIGSTOP (get_signal in kernel/signal.c, for an orphaned process group). All
 * signals are blocked, and a stop signal removes a pending SIGCONT: one that is pending afterwards has continued us.
 */
static void stop_by(int sig)
{
	struct sigaction stops = { .sa_handler = SIG_DFL }, old;
	sigset_t one, pending;

	if (sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU) {
		sigemptyset(&one);
		sigaddset(&one, sig);
		sigaction(sig, &stops, &old);
		raise(sig);
		pthread_sigmask(SIG_UNBLOCK, &one, NULL);
		pthread_sigmask(SIG_BLOCK, &one, NULL);
		sigaction(sig, &old, NULL);
		if (!sigpending(&pending) && sigismember(&pending, SIGCONT))
			return;
	}
	kill(getpid(), SIGSTOP);
}

/*
 * Stop as the program has, so that the shell sees its job stopped, and continue
 * with it.
 *
 * A shell continues the whole process group. We may run long after the program
 * does, which may even have been stopped again; a SIGCONT from us would then undo
 * that. So we send one only if we alone were continued: the program is still
 * stopped, and nothing newer is reported about it.
 */
static void stop_too(int sig, int channel, int pidfd, int signals, int terminal)
{
	struct pollfd news = { channel, POLLIN, 0 };
	struct signalfd_siginfo info;
	pid_t pid = lcp_pid_behind(pidfd);

	if (!is_stopped(pid))
		return; /* continued meanwhile */
	stop_by(sig);
	while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCONT)
			pass_on(pidfd, &info, terminal);
	if (is_stopped(pid) && poll(&news, 1, NEWS_MS) == 0 && is_stopped(pid))
		lcp_pidfd_signal(pidfd, SIGCONT);
}

int lcp_has_said_so(int control)
{
	char word;

	return recv(control, &word, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && word == 'S';
}

/* Close what was passed on if the program has begun. Its message stays to be read. */
static void release_descriptors(const struct lcp_handed *handed)
{
	if (lcp_has_said_so(handed->control))
		for (int i = 0; i < handed->count; i++)
			close(handed->fds[i]);
}

void lcp_end_orphan(int pidfd)
{
	struct pollfd ended = { pidfd, POLLIN, 0 };
	pid_t pid;

	lcp_pidfd_signal(pidfd, SIGSTOP); /* it shall not make more */
	pid = lcp_pid_behind(pidfd);
	if (pid)
		lcp_kill_children(pid);
	lcp_pidfd_signal(pidfd, SIGKILL);
	while (poll(&ended, 1, -1) < 0 && errno == EINTR)
		;
}

int lcp_proxy(int channel, int pidfd, int terminal, const struct lcp_handed *handed, int *status)
{
	struct lcp_event event;
	sigset_t all, old;
	AUTO_CLOSE int signals = -1, parent = handed ? handed->parent : -1;
	int result = 0, ignored, control = handed && handed->count ? handed->control : -1;
	int typed = 0; /* Ctrl-Z was, or SIGTSTP sent to us */

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		result = -errno;
	while (!result) {
		struct pollfd polled[] = {
			{ channel, POLLIN, 0 }, { signals, POLLIN, 0 }, { control, POLLIN, 0 }, { parent, POLLIN, 0 }
		};
		struct signalfd_siginfo info;

		if (poll(polled, 4, -1) <= 0)
			continue;
		if (polled[3].revents) {
			close(parent);
			parent = lcp_watch_parent(channel);
		}
		if (polled[1].revents)
			while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
				typed |= pass_on(pidfd, &info, terminal);
		if (polled[2].revents) {
			release_descriptors(handed);
			control = -1;
		}
		if (!polled[0].revents)
			continue;
		result = lcp_next_event(channel, -1, &event, &ignored);
		if (result < 0)
			break;
		result = 0;
		if (event.kind == LCP_EVENT_STOPPED) {
			stop_too(typed ? SIGTSTP : event.value, channel, pidfd, signals, terminal);
			typed = 0;
		} else if (event.kind == LCP_EVENT_ENDED) {
			*status = event.value;
			break;
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return result;
}
