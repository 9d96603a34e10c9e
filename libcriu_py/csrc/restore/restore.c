#define _GNU_SOURCE
#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "restore/criu_options.h"
#include "restore/handover.h"
#include "restore/launch.h"
#include "restore/manifest.h"
#include "restore/order.h"
#include "restore/place.h"
#include "restore/problem.h"
#include "restore/reason.h"
#include "restore/record.h"
#include "restore/request.h"
#include "restore/scratch.h"
#include "restore/take.h"
#include "supervise/events.h"
#include "supervise/namespaces.h"
#include "supervise/supervisor.h"

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

#define PATIENCE_MS 2000 /* for a restore that somebody wants to end */

/* ---- what is handed over ---------------------------------------------- */

/* Send the request ahead: the copy finds it when criu lets it go, and does not wait until this process has heard of that. */
static int send_request(int file, const struct inherited_fds *inherited, int control, struct problem *problem)
{
	int fds[1 + MOST_INHERITED] = { file }, result = file;

	if (file >= 0) {
		memcpy(fds + 1, inherited->fds, (size_t)inherited->count * sizeof(*fds));
		result = lcp_send_fds(control, fds, 1 + inherited->count);
		close(file);
	}
	return result < 0 ? lcp_problem_set(problem, LAUNCHER_FAILED, "the request cannot be made: %s", strerror(-result)) : 0;
}

/* What is left to be done while criu starts. What it finds wrong is the reason, whatever comes of criu. */
struct preparation {
	const struct launch *launch;
	const struct snapshot *snapshot;
	const struct self *self;
	int pair[2]; /* the sockets of the hand-over: ours, the copy's */
	struct inherited_fds *inherited;
	int is_checked, is_complete;
};

static int complete(struct preparation *prepared, struct problem *problem)
{
	const struct order *order = prepared->launch->order;
	struct request request;
	char cwd[PATH_MAX];
	int file;

	if (prepared->is_complete)
		return 0;
	prepared->is_checked = 1;
	if (lcp_snapshot_check(prepared->snapshot, !order, problem))
		return -1;
	if (order && order->flags & (ORDER_STANDBY | ORDER_HOLD))
		return 0; /* that comes later */
	if (order) {
		*prepared->inherited = order->passed;
		file = lcp_order_request(order, 0);
	} else {
		if (lcp_fill_request(&request, prepared->launch, prepared->snapshot, prepared->self, prepared->inherited, cwd,
				     problem))
			return -1;
		file = lcp_request_file(&request);
	}
	if (send_request(file, prepared->inherited, prepared->pair[0], problem))
		return -1;
	prepared->is_complete = 1;
	return 0;
}

/* ---- the start -------------------------------------------------------- */

/* By which users end programs. */
static const int ending[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

int lcp_is_ending_signal(int sig)
{
	for (size_t i = 0; i < sizeof(ending) / sizeof(*ending); i++)
		if (ending[i] == sig)
			return 1;
	return 0;
}

/* What came of one attempt. */
struct attempt {
	struct lcp_event news;
	int channel, pidfd;
	pid_t supervisor;
};

/*
 * Signals are blocked, and meant for the program: they are passed on when there
 * is one. A restore that does not come to an end is ended by them.
 */
static int await_news(struct attempt *attempt, int signals)
{
	int wanted_to_end = 0, result;

	for (;;) {
		struct pollfd polled[2] = { { attempt->channel, POLLIN, 0 }, { wanted_to_end ? -1 : signals, POLLIN, 0 } };
		int count = poll(polled, 2, wanted_to_end ? PATIENCE_MS : -1);

		if (count == 0) {
			kill(attempt->supervisor, SIGKILL);
			return -ETIMEDOUT;
		}
		if (count > 0 && polled[1].revents)
			wanted_to_end = 1;
		if (count < 0 || !polled[0].revents)
			continue;
		result = lcp_next_event(attempt->channel, -1, &attempt->news, &attempt->pidfd);
		return result < 0 ? result : 0;
	}
}

static void give_up(struct attempt *attempt)
{
	close(attempt->channel);
	if (attempt->supervisor > 0)
		while (waitpid(attempt->supervisor, NULL, 0) < 0 && errno == EINTR)
			;
}

/* Why there is no restored process. */
static int explain(const struct attempt *attempt, int result, const struct work *work, const struct self *self,
		   struct problem *problem)
{
	if (result)
		return lcp_problem_set(problem, LAUNCHER_FAILED,
				       "the supervisor of the restore ended before it could restore anything");
	if (attempt->news.stage == LCP_STAGE_RESTORE) {
		lcp_reason_of_refusal(work->fd, attempt->news.error, problem);
		problem->value = attempt->news.value;
		return -1;
	}
	lcp_forget_namespaces(self);
	lcp_problem_set(problem, LAUNCHER_FAILED, "there is no place for the restore: %s failed (%s); libcriu-py doctor says "
			   "what to do", lcp_stage_text(attempt->news.stage), strerror(attempt->news.error));
	problem->failure = FAILURE_NAMESPACES;
	problem->error = attempt->news.error;
	problem->stage = attempt->news.stage;
	return -1;
}

/*
 * Start the supervisor, and wait until it has started criu: the kernel leaves a new process on the processor of its
 * parent, where it would come to that only when this process has nothing more to do.
 */
static int supervise(struct attempt *attempt, const struct lcp_job *job, int signals)
{
	int result = lcp_supervise_directly(job, &attempt->channel, &attempt->supervisor);

	attempt->pidfd = -1;
	if (!result)
		return await_news(attempt, signals);
	attempt->supervisor = 0;
	attempt->channel = -1;
	attempt->news = (struct lcp_event){ LCP_EVENT_FAILED, 0, -result, job->namespaces ? LCP_STAGE_UNSHARE : LCP_STAGE_FORK };
	return 0;
}

/*
 * In the supervisor, before anything is told: the program may have begun by now, and who reads its output may kill this
 * launcher at any moment.
 */
static void clear(void *work)
{
	lcp_work_remove(work);
}

/* Let criu restore, where it was started; 0, or -1 with `taken` telling whether that was for a pid in use. */
static int conclude(struct attempt *attempt, int result, const struct preparation *prepared, const struct work *work,
		    int signals,
		    int *taken, struct problem *problem)
{
	int refused;

	if (!result && attempt->news.kind == LCP_EVENT_SUPERVISED) {
		lcp_give_word(attempt->channel); /* to one that has ended already in vain, as its news tell */
		result = await_news(attempt, signals);
	}
	if (!result && attempt->news.kind == LCP_EVENT_STARTED)
		return 0;
	refused = !result && attempt->news.stage == LCP_STAGE_RESTORE;
	give_up(attempt);
	explain(attempt, result, work, prepared->self, problem);
	/* criu reports EEXIST for the first process of a tree, and for others only a line. */
	*taken = refused && (attempt->news.error == EEXIST || strstr(problem->text, "File exists"));
	return -1;
}

/* Restore in a place; 0, or -1 with `taken` telling whether that was for a pid in use. */
static int restore_at(struct attempt *attempt, const struct place *place, const struct decision *decision,
		      struct preparation *prepared, struct inherited *inherited, int signals, int *taken, struct problem *problem)
{
	const struct snapshot *snapshot = prepared->snapshot;
	const char *criu = place->namespaces & LCP_NS_USER ? decision->plain : decision->criu;
	int images = inherited->fds[4], result;
	struct criu_environment environment;
	struct lcp_job job = { 0 };
	struct work work;

	*taken = 0;
	if (lcp_scratch_environment(&environment, criu, prepared->self->seccomp_filters > 0, problem) ||
	    lcp_work_make(&work, problem))
		return -1;
	result = lcp_make_options(&job.restore, criu, inherited, images, work.fd, snapshot, problem);
	if (!result) {
		job.monotonic = snapshot->facts->monotonic;
		job.boottime = snapshot->facts->boottime;
		job.namespaces = place->namespaces;
		job.flags = LCP_DIE_WITH_CALLER | LCP_AWAIT_WORD;
		if (prepared->launch->order && prepared->launch->order->flags & ORDER_STANDBY)
			job.flags |= LCP_STANDBY;
		job.ambient = place->ambient;
		job.last_pid = place->last_pid;
		job.inherit = inherited->fds;
		job.inherit_count = inherited->count;
		job.env = environment.variables;
		job.restored = clear;
		job.context = &work;
		result = supervise(attempt, &job, signals);
		if (!complete(prepared, problem)) {
			result = conclude(attempt, result, prepared, &work, signals, taken, problem);
		} else {
			give_up(attempt);
			result = -1;
		}
	}
	criu_local_free_opts(job.restore);
	if (result)
		lcp_work_remove(&work);
	close(work.fd);
	return result;
}

/* ---- all of it -------------------------------------------------------- */

static int try_places(struct attempt *attempt, const struct decision *decision, struct preparation *prepared,
		      struct inherited *inherited, int signals, struct problem *problem)
{
	const struct order *order = prepared->launch->order;
	struct place place;
	int taken;

	lcp_decide_place(&place, decision, prepared->self, prepared->snapshot, order && order->flags & ORDER_ISOLATE);
	if (!restore_at(attempt, &place, decision, prepared, inherited, signals, &taken, problem))
		return 0;
	if (!taken || place.namespaces & LCP_NS_PID)
		return -1;
	/* A pid that was taken meanwhile: in a namespace of its own it is free. */
	lcp_decide_place(&place, decision, prepared->self, prepared->snapshot, 1);
	return restore_at(attempt, &place, decision, prepared, inherited, signals, &taken, problem);
}

/* Send what arrived before there was a program to send it to. */
static void pass_on_early(int signals, int pidfd)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		syscall(SYS_pidfd_send_signal, pidfd, (int)info.ssi_signo, NULL, 0);
}

/* Take the request back from a copy that has not taken it up, and so ends without; 0 or -1. */
static int take_back(int slot)
{
	char tag;

	while (recv(slot, &tag, 1, MSG_DONTWAIT) > 0)
		if (tag == 'F')
			return 0;
	return -1;
}

/* Wait for the news of a copy that has taken up its request: whether its program has begun, or it has ended instead. */
static int has_begun(int control)
{
	char word;

	return recv(control, &word, 1, 0) == 1 && word == 'S';
}

static int restore_anew(struct restored *restored, struct preparation *prepared, int signals, struct problem *problem)
{
	const struct snapshot *snapshot = prepared->snapshot;
	struct decision decision;
	struct inherited inherited = { 0 };
	struct attempt attempt;
	int taken = 0, result;

	if (lcp_decide_mode(&decision, prepared->launch->mode, prepared->self, snapshot, problem)) {
		problem->failure = FAILURE_MODE;
		return -1;
	}
	result = lcp_socketpair(prepared->pair);
	if (result)
		return lcp_problem_set(problem, LAUNCHER_FAILED, "the request cannot be made: %s", strerror(-result));
	result = lcp_open_inherited(&inherited, snapshot, prepared->pair[1], problem);
	if (!result)
		result = try_places(&attempt, &decision, prepared, &inherited, signals, problem);
	if (result)
		taken = prepared->is_complete && take_back(prepared->pair[1]);
	lcp_close_inherited(&inherited);
	if (result) {
		/* A criu that has died right after it had let the copy go. */
		result = taken && has_begun(prepared->pair[0]) ? 1 : -1;
		close(prepared->pair[0]);
		return result;
	}
	restored->channel = attempt.channel;
	restored->supervisor = attempt.supervisor;
	restored->pid = attempt.news.value;
	restored->pidfd = attempt.pidfd;
	restored->control = prepared->pair[0];
	restored->own_session = !!(snapshot->facts->flags & RECORD_SESSION_LEADER);
	return 0;
}

static int restore_blocked(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
			   int signals, struct problem *problem)
{
	struct self self;
	struct preparation prepared = { launch, snapshot, &self, { -1, -1 }, &restored->inherited, 0, 0 };
	struct problem found;
	int result;

	if (lcp_self_read(&self, problem))
		return -1;
	if ((!launch->order || launch->order->flags & ORDER_MAY_TAKE) && lcp_take_copy(restored, launch, snapshot, &self))
		return 0;
	result = restore_anew(restored, &prepared, signals, problem);
	/* What is wrong with the snapshot comes first, also where something else is found before. */
	if (result < 0 && !prepared.is_checked && lcp_snapshot_check(snapshot, !launch->order, &found))
		*problem = found;
	return result;
}

int lcp_restore(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		struct problem *problem)
{
	sigset_t all, old, wanted;
	int signals, result;

	sigfillset(&all);
	sigemptyset(&wanted);
	for (size_t i = 0; i < sizeof(ending) / sizeof(*ending); i++)
		sigaddset(&wanted, ending[i]);
	sigprocmask(SIG_SETMASK, &all, &old);
	/* Where there is a caller signals are its own matter, and its end is what ends a restore. */
	signals = launch->order ? launch->order->status : signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
	result = signals < 0 ? lcp_problem_set(problem, LAUNCHER_FAILED, "signalfd: %s", strerror(errno)) :
			       restore_blocked(restored, launch, snapshot, signals, problem);
	if (!result && !launch->order)
		pass_on_early(signals, restored->pidfd);
	if (signals >= 0 && !launch->order)
		close(signals);
	restored->mask = old;
	if (result)
		sigprocmask(SIG_SETMASK, &old, NULL);
	return result;
}
