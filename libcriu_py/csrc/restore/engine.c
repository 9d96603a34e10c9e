#define _GNU_SOURCE
#include "restore/engine.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "become/become.h"
#include "common/cleanup.h"
#include "common/descriptors.h"
#include "common/process.h"
#include "restore/handover.h"
#include "restore/interpreter.h"
#include "restore/launch.h"
#include "restore/order.h"
#include "restore/privilege.h"
#include "restore/problem.h"
#include "restore/request.h"
#include "restore/snapshot.h"
#include "supervise/events.h"
#include "supervise/supervisor.h"

#define VARIABLE "LIBCRIU_PY_ENGINE"

/* ---- which engine -------------------------------------------------------------- */

static const char *const names[ENGINES] = { "", "auto", "native", "criu" };

int lcp_engine_of(const char *name)
{
	for (int engine = ENGINE_AUTO; engine < ENGINES; engine++)
		if (!strcmp(names[engine], name))
			return engine;
	return -1;
}

int lcp_is_native(const struct snapshot *snapshot)
{
	return snapshot->facts->engine == RECORD_NATIVE;
}

int lcp_engine_check(const struct launch *launch, const struct snapshot *snapshot, struct problem *problem)
{
	int wanted = launch->order ? (int)ORDER_ENGINE(launch->order->flags) : ENGINE_UNSET;
	enum engine own = lcp_is_native(snapshot) ? ENGINE_NATIVE : ENGINE_CRIU;
	const char *variable = getenv(VARIABLE);

	if (launch->engine)
		wanted = lcp_engine_of(launch->engine);
	/* A dump can be simulated; there is no snapshot of one. */
	if (wanted == ENGINE_UNSET && variable && *variable && strcmp(variable, "simulate")) {
		wanted = lcp_engine_of(variable);
		if (wanted < 0)
			return lcp_failed(problem, VARIABLE " must be auto, native or criu, not '%s'", variable);
	}
	if (wanted == ENGINE_UNSET || wanted == ENGINE_AUTO || wanted == (int)own)
		return 0;
	return lcp_unusable(problem, "%s is of the engine %s, and %s was asked for; leave that out, or make a snapshot with "
			    "--engine %s", snapshot->path, names[own], names[wanted], names[wanted]);
}

/* ---- what both ways check --------------------------------------------------------- */

static int open_plan(struct plan *plan, const struct snapshot *snapshot, struct problem *problem)
{
	struct why why;

	if (!lcp_plan_open(plan, snapshot->directory, &why))
		return 0;
	return lcp_unusable(problem, "%s cannot be restored here: %s", snapshot->path, why.text);
}

/* ---- this process ------------------------------------------------------------------- */

/* Put the request into a socket; 0 or -1. */
static int make_slot(struct become *become, const struct launch *launch, const struct snapshot *snapshot,
		     const struct own_status *own, struct problem *problem)
{
	const struct inherited_fds nothing = { .count = 0 };
	AUTO_CLOSE int control = -1, slot = -1, file = -1;
	struct request request;
	char cwd[PATH_MAX];
	int pair[2], result = lcp_describe_self(&request, launch, snapshot, own, cwd, problem);

	if (result)
		return -1;
	/* What else it is, it is by nature. */
	request.pid = 0; /* of the dumped process; variables that name this process name the copy */
	request.pgid = 0;
	request.in_place = 1;
	memset(request.schedule, 0, sizeof(request.schedule));
	become->absent = request.closed;
	result = lcp_socketpair(pair);
	if (!result) {
		control = pair[0];
		slot = pair[1];
		file = lcp_request_file(&request);
		result = lcp_send_request(control, file, 0, &nothing);
	}
	if (result)
		return lcp_failed(problem, "the request cannot be made: %s", strerror(-result));
	become->control = lcp_keep_fd(&control);
	become->slot = lcp_keep_fd(&slot);
	return 0;
}

int lcp_become_native(const struct launch *launch, const struct snapshot *snapshot, const struct own_status *own,
		      struct problem *problem)
{
	struct become become = { .directory = snapshot->directory, .report = -1, .arguments = launch->arguments };
	struct plan plan;
	struct why why;

	if (lcp_snapshot_check_unmapped(snapshot, problem) || open_plan(&plan, snapshot, problem))
		return -1;
	become.flags = (launch->quiet ? BECOME_QUIET : 0) | (launch->stop ? BECOME_STOP : 0) |
		       (lcp_is_interpreter(snapshot) ? BECOME_WHOLE : 0);
	become.blocked = launch->blocked;
	become.ignored = (own->all_ignored & ~((uint64_t)1 << (SIGXFSZ - 1))) |
			 (launch->xfsz_ignored ? (uint64_t)1 << (SIGXFSZ - 1) : 0);
	become.command = launch->conventional;
	become.env = launch->conventional_env;
	if (make_slot(&become, launch, snapshot, own, problem))
		return -1;
	lcp_become(&become, &plan, &why);
	return lcp_problem_set(problem, why.is_changed ? SNAPSHOT_UNUSABLE : LAUNCHER_FAILED,
			       "%s cannot be restored here: %s", snapshot->path, why.text);
}

/* ---- a child of a supervisor ----------------------------------------------------------- */

struct ordered {
	struct become become;
	struct plan plan;
};

/* Returns only where there is no copy, of which the caller has been told why. */
static void become_ordered(void *context, int report)
{
	struct ordered *this = context;
	struct why why;

	this->become.report = report;
	lcp_become(&this->become, &this->plan, &why);
}

static int explain(const struct lcp_event *news, int result, struct problem *problem)
{
	if (result)
		return lcp_failed(problem, "the supervisor of the restore ended before it had told of a copy");
	return lcp_failed(problem, "the supervisor of the restore cannot be started: %s failed (%s)",
			  lcp_stage_text(news->stage), strerror(news->error));
}

/* Put the request into the socket of the hand-over; 0 or -errno. */
static int send_order(const struct order *order, int control)
{
	AUTO_CLOSE int file = lcp_order_request(order, 0);

	return lcp_send_request(control, file, 0, &order->passed);
}

static int supervise(struct restored *restored, struct ordered *ordered, unsigned int flags, struct problem *problem)
{
	struct lcp_job job = { .become = become_ordered, .context = ordered, .flags = LCP_DIE_WITH_CALLER };
	struct lcp_event news = { 0 };
	int result;

	if (flags & ORDER_STANDBY)
		job.flags |= LCP_STANDBY;
	restored->pidfd = -1;
	result = lcp_supervise_directly(&job, &restored->channel, &restored->supervisor);
	if (result)
		return lcp_failed(problem, "the supervisor of the restore cannot be started: %s", strerror(-result));
	do
		result = lcp_next_event(restored->channel, -1, &news, &restored->pidfd);
	while (result > 0 && news.kind != LCP_EVENT_STARTED && news.kind != LCP_EVENT_FAILED);
	restored->pid = news.value;
	if (result > 0 && news.kind == LCP_EVENT_STARTED)
		return 0;
	close(restored->channel);
	lcp_wait_for(restored->supervisor);
	return explain(&news, result < 0, problem);
}

int lcp_supervise_native(struct restored *restored, const struct launch *launch, const struct snapshot *snapshot,
			 struct problem *problem)
{
	const struct order *order = launch->order;
	struct ordered ordered = { .become = { .directory = snapshot->directory, .control = -1, .flags = BECOME_ALONE } };
	AUTO_CLOSE int control = -1, slot = -1;
	int pair[2], result;

	if (lcp_snapshot_check(snapshot, order, problem) || open_plan(&ordered.plan, snapshot, problem))
		return -1;
	result = lcp_socketpair(pair);
	if (!result) {
		control = pair[0];
		slot = ordered.become.slot = pair[1];
		restored->inherited = order->passed;
		/* Ahead of time: the copy finds it at once. */
		if (!(order->flags & (ORDER_STANDBY | ORDER_HOLD)))
			result = send_order(order, control);
	}
	if (result)
		return lcp_failed(problem, "the request cannot be made: %s", strerror(-result));
	if (supervise(restored, &ordered, order->flags, problem))
		return -1;
	restored->control = lcp_keep_fd(&control);
	return 0;
}
