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
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/process.h"
#include "restore/criu_options.h"
#include "restore/engine.h"
#include "restore/from_pool.h"
#include "restore/handover.h"
#include "restore/launch.h"
#include "restore/limit.h"
#include "restore/order.h"
#include "restore/privilege.h"
#include "restore/problem.h"
#include "restore/record.h"
#include "restore/refusal.h"
#include "restore/request.h"
#include "restore/scratch.h"
#include "restore/snapshot.h"
#include "restore/tree.h"
#include "restore/turns.h"
#include "supervise/events.h"
#include "supervise/namespaces.h"
#include "supervise/parent.h"
#include "supervise/proxy.h"
#include "supervise/supervisor.h"

#define PATIENCE_MS 2000 /* for a restore that somebody wants to end */

/* ---- the request ------------------------------------------------------ */

/* A restore, up to the running copy. */
struct restoration {
	const struct launch *launch;
	const struct snapshot *snapshot;
	struct problem *problem;
	int signals; /* readable when somebody wants it to end */
	struct own_status own;
	struct decision decision;
	int pair[2]; /* the sockets of the hand-over: ours, the copy's */
	struct inherited inherited;
	struct inherited_fds *passed;
	int is_checked, is_complete, is_pid_taken, has_parent, is_signalled, typed_late;
	/* The outcome of the last attempt. */
	struct lcp_event news;
	int channel, pidfd;
	pid_t supervisor;
	int limit; /* of an attempt, in ms */
	long long until;
};

static int has_flag(const struct launch *launch, unsigned int flags)
{
	return launch->order && launch->order->flags & flags;
}

/* Check the snapshot and send the request while criu starts. What is wrong here is the reason, whatever criu says. */
static int finish_request(struct restoration *this)
{
	const struct order *order = this->launch->order;
	AUTO_CLOSE int file = -1;
	struct request request;
	char cwd[PATH_MAX];
	int result;

	if (this->is_complete)
		return 0;
	this->is_checked = 1;
	if (lcp_snapshot_check(this->snapshot, order, this->problem))
		return -1;
	if (has_flag(this->launch, ORDER_STANDBY | ORDER_HOLD))
		return 0; /* sent later */
	if (order) {
		*this->passed = order->passed;
		file = lcp_order_request(order, 0);
	} else {
		if (lcp_fill_request(&request, this->launch, this->snapshot, &this->own, this->passed, cwd,
				     this->problem))
			return -1;
		file = lcp_request_file(&request);
	}
	/* Ahead of time: the copy finds it at once when criu lets it go. */
	result = lcp_send_request(this->pair[0], file, 0, this->passed);
	if (result)
		return lcp_failed(this->problem, "the request cannot be made: %s", strerror(-result));
	this->is_complete = 1;
	return 0;
}

/* ---- the start -------------------------------------------------------- */

/* Users end programs by these. */
static const int ending_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

int lcp_is_ending_signal(int sig)
{
	for (size_t i = 0; i < sizeof(ending_signals) / sizeof(*ending_signals); i++)
		if (ending_signals[i] == sig)
			return 1;
	return 0;
}

/*
 * Signals are blocked and meant for the program, which gets them once it runs. One that ends programs also ends a
 * restore that does not finish in time.
 */
static int await_news(struct restoration *this)
{
	int wanted_to_end = 0, result;

	for (;;) {
		struct pollfd polled[2] = { { this->channel, POLLIN, 0 },
					    { wanted_to_end ? -1 : this->signals, POLLIN, 0 } };
		long long left = this->until - lcp_now_ms();
		int count = poll(polled, 2, left > 0 ? (int)left : 0);

		if (count == 0) {
			lcp_kill_tree(this->supervisor);
			return wanted_to_end ? -EINTR : -ETIMEDOUT;
		}
		if (count > 0 && polled[1].revents) {
			if (!this->is_signalled++)
				this->typed_late = lcp_has_said_so(this->pair[0]);
			wanted_to_end = 1;
			this->until = lcp_now_ms() + PATIENCE_MS;
		}
		if (count < 0 || !polled[0].revents)
			continue;
		result = lcp_next_event(this->channel, -1, &this->news, &this->pidfd);
		return result < 0 ? result : 0;
	}
}

static void give_up(const struct restoration *this)
{
	close(this->channel);
	if (this->supervisor > 0)
		lcp_wait_for(this->supervisor);
}

/* Set the reason why there is no restored process; -1. */
static int explain(const struct restoration *this, int result, const struct work *work)
{
	if (result == -ETIMEDOUT)
		return lcp_failed(this->problem,
				  "criu did not restore it within %g s (LIBCRIU_PY_CRIU_LIMIT), and was ended",
				  this->limit / 1000.0);
	if (!result && this->news.stage == LCP_STAGE_CRIU)
		return lcp_failed(this->problem, "criu was ended by signal SIG%s before it had restored it",
				  sigabbrev_np(this->news.value) ?: "?");
	if (result)
		return lcp_failed(this->problem,
				  "the supervisor of the restore ended before it had told of a copy");
	if (this->news.stage == LCP_STAGE_WORK)
		return lcp_failed(this->problem, "%s cannot be made: %s", work->path, strerror(this->news.error));
	if (this->news.stage == LCP_STAGE_RESTORE) {
		lcp_explain_refusal(work->path, this->news.error, this->problem);
		this->problem->value = this->news.value;
		return -1;
	}
	lcp_forget_namespaces(&this->own);
	lcp_failed(this->problem,
		   "the namespaces of the restore cannot be made: %s failed (%s); libcriu-py doctor says "
		   "what to do",
		   lcp_stage_text(this->news.stage), strerror(this->news.error));
	this->problem->failure = FAILURE_NAMESPACES;
	this->problem->error = this->news.error;
	this->problem->stage = this->news.stage;
	return -1;
}

/*
 * Start the supervisor, and wait until it has started criu: the kernel leaves a new process on the processor of its
 * parent, where it would come to that only when this process has nothing more to do.
 */
static int supervise(struct restoration *this, const struct lcp_job *job)
{
	int result = lcp_supervise_directly(job, &this->channel, &this->supervisor);

	this->pidfd = -1;
	this->until = lcp_now_ms() + this->limit;
	if (!result)
		return await_news(this);
	this->supervisor = 0;
	this->channel = -1;
	this->news = (struct lcp_event){ LCP_EVENT_FAILED, 0, -result,
					    job->namespaces ? LCP_STAGE_UNSHARE : LCP_STAGE_FORK };
	return 0;
}

/* Let the waiting criu restore; 0, or -1 with `is_pid_taken` set if a pid was in use. */
static int finish_restore(struct restoration *this, int result, const struct work *work)
{
	int refused;

	if (!result && this->news.kind == LCP_EVENT_SUPERVISED) {
		lcp_give_word(this->channel); /* in vain if it has ended, as its event then says */
		result = await_news(this);
	}
	if (!result && this->news.kind == LCP_EVENT_STARTED)
		return 0;
	refused = !result && this->news.stage == LCP_STAGE_RESTORE;
	explain(this, result, work); /* a supervisor that is given up may remove criu's log */
	give_up(this);
	/* criu reports EEXIST for the first process of a tree, and for others only a line. */
	this->is_pid_taken = refused && (this->news.error == EEXIST || strstr(this->problem->text, "File exists"));
	return -1;
}

/* Restore in namespaces; 0, or -1 with `is_pid_taken` set if a pid was in use. */
static int restore_isolated(struct restoration *this, const struct isolation *isolation)
{
	const struct snapshot *snapshot = this->snapshot;
	const char *criu = isolation->namespaces & LCP_NS_USER ? this->decision.plain : this->decision.criu;
	int images = this->inherited.fds[4], has_pids = !!(isolation->namespaces & LCP_NS_PID), result;
	AUTO_FREE char *cache = lcp_criu_cache(criu, this->own.seccomp_filters > 0, this->problem);
	char *const environment[] = { cache, CRIU_ENVIRONMENT };
	struct lcp_job job = { 0 };
	struct work work;

	this->is_pid_taken = 0;
	if (!cache || lcp_work_choose(&work, this->problem))
		return -1;
	result = lcp_make_options(&job.restore, criu, &this->inherited, images, snapshot, this->problem);
	if (!result) {
		job.monotonic = snapshot->facts->monotonic;
		job.boottime = snapshot->facts->boottime;
		job.namespaces = isolation->namespaces;
		job.flags = LCP_DIE_WITH_CALLER | LCP_AWAIT_WORD;
		if (has_flag(this->launch, ORDER_STANDBY))
			job.flags |= LCP_STANDBY;
		/* A program that has been an orphan from the start must not see another parent, which would then seem to end. */
		this->has_parent = has_pids && (job.flags & LCP_STANDBY || getppid() != 1);
		if (this->has_parent)
			job.flags |= LCP_HAS_PARENT;
		job.ambient = isolation->ambient;
		job.last_pid = isolation->last_pid;
		job.inherit = this->inherited.fds;
		job.inherit_count = this->inherited.count;
		job.env = environment;
		/* Supervisor and launcher notice each other's end: whoever is left removes it. */
		job.restores = lcp_work_make;
		job.restored = lcp_work_remove;
		job.context = &work;
		if (!has_pids)
			lcp_orphans_begin();
		result = supervise(this, &job);
		if (!finish_request(this)) {
			result = finish_restore(this, result, &work);
		} else {
			give_up(this);
			result = -1;
		}
		if (!has_pids)
			lcp_orphans_end(result ? snapshot : NULL);
	}
	criu_local_free_opts(job.restore);
	if (result)
		lcp_work_remove(&work);
	return result;
}

/* ---- the restore ------------------------------------------------------ */

static int restore_somewhere(struct restoration *this)
{
	struct isolation isolation;

	lcp_decide_isolation(&isolation, &this->decision, &this->own, this->snapshot,
			     has_flag(this->launch, ORDER_ISOLATE));
	if (!restore_isolated(this, &isolation))
		return 0;
	if (!this->is_pid_taken || isolation.namespaces & LCP_NS_PID)
		return -1;
	/* A pid was taken meanwhile; in a pid namespace it is free. */
	lcp_decide_isolation(&isolation, &this->decision, &this->own, this->snapshot, 1);
	return restore_isolated(this, &isolation);
}

static int restore_anew(struct restoration *this, struct restored *restored)
{
	struct turns turns = { -1 };
	int is_read = 0, result;

	if (lcp_decide_mode(&this->decision, this->launch->mode, &this->own, this->snapshot, this->problem)) {
		this->problem->failure = FAILURE_MODE;
		return -1;
	}
	this->limit = lcp_restore_limit(this->snapshot);
	result = lcp_socketpair(this->pair);
	if (result)
		return lcp_failed(this->problem, "the request cannot be made: %s", strerror(-result));
	result = lcp_open_inherited(&this->inherited, this->snapshot, this->pair[1], this->problem);
	if (!result)
		result = lcp_turns_take(&turns, this->snapshot, this->limit, this->signals, this->problem);
	if (!result)
		result = restore_somewhere(this);
	lcp_turns_end(&turns);
	if (result)
		is_read = this->is_complete && lcp_withdraw_request(this->pair[1]);
	lcp_close_inherited(&this->inherited);
	if (result) {
		/* criu or the supervisor died right after the copy had been let go; all of it has ended. */
		result = is_read && lcp_has_begun(this->pair[0]) ? 1 : -1;
		if (result > 0)
			lcp_problem_add(this->problem, "; the program had begun, and has ended with it");
		close(this->pair[0]);
		return result;
	}
	restored->channel = this->channel;
	restored->supervisor = this->supervisor;
	restored->pid = this->news.value;
	restored->pidfd = this->pidfd;
	restored->control = this->pair[0];
	restored->parent = this->has_parent ? lcp_watch_parent(this->channel) : -1;
	restored->typed_late = this->typed_late;
	restored->own_session = !!(this->snapshot->facts->flags & RECORD_SESSION_LEADER);
	return 0;
}

static int restore_blocked(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
			   int signals, struct problem *problem)
{
	struct restoration this = { launch,  snapshot,		 problem,
				    signals, .pair = { -1, -1 }, .passed = &restored->inherited };
	int result;

	if (lcp_engine_check(launch, snapshot, problem) ||
	    (lcp_is_native(snapshot) ? lcp_read_ignored(&this.own) : lcp_read_own_status(&this.own, problem)))
		return -1;
	if ((!launch->order || has_flag(launch, ORDER_MAY_TAKE)) &&
	    lcp_claim_copy(restored, launch, snapshot, &this.own))
		return 0;
	if (lcp_is_native(snapshot))
		return launch->order ? lcp_supervise_native(restored, launch, snapshot, problem) :
				       lcp_become_native(launch, snapshot, &this.own, problem);
	result = restore_anew(&this, restored);
	/* What is wrong with the snapshot is the reason, even if something else failed first. */
	if (result < 0 && !this.is_checked && lcp_snapshot_check(snapshot, launch->order, NULL))
		lcp_snapshot_check(snapshot, launch->order, problem);
	return result;
}

static int open_signals(void)
{
	sigset_t wanted;

	sigemptyset(&wanted);
	for (size_t i = 0; i < sizeof(ending_signals) / sizeof(*ending_signals); i++)
		sigaddset(&wanted, ending_signals[i]);
	return signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
}

int lcp_restore(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
		struct problem *problem)
{
	int becomes = !launch->order && lcp_is_native(snapshot), signals = -1, result;
	sigset_t all, old;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	/* A caller handles signals itself, and its end ends the restore. A process that becomes the copy keeps nothing open. */
	if (!becomes)
		signals = launch->order ? launch->order->status : open_signals();
	result = signals < 0 && !becomes ? lcp_failed(problem, "signalfd: %s", strerror(errno)) :
					   restore_blocked(restored, launch, snapshot, signals, problem);
	if (!result)
		lcp_tree_release(snapshot->directory);
	if (!result && becomes) /* it is a pool's copy after all */
		signals = open_signals();
	if (!result && !launch->order)
		lcp_pass_on_early(signals, restored);
	if (signals >= 0 && !launch->order)
		close(signals);
	restored->mask = old;
	if (result)
		sigprocmask(SIG_SETMASK, &old, NULL);
	return result;
}
