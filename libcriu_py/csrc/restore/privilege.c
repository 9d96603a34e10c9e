#define _GNU_SOURCE
#include "restore/privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/files.h"
#include "restore/criu_binary.h"
#include "restore/problem.h"
#include "restore/record.h"
#include "restore/scratch.h"
#include "restore/snapshot.h"
#include "supervise/namespaces.h"

#define CAPABILITY_SYS_PTRACE 19

/* Add what stops a mode; -1. */
#define stopped(problem, ...) (lcp_problem_add(problem, __VA_ARGS__), -1)

#define SERVICE_VARIABLE "LIBCRIU_PY_SERVICE"
#define MODE_VARIABLE "LIBCRIU_PY_MODE"
/* Pids of a restore's helper processes come from low numbers. */
#define HELPER_PIDS 20

static const char *const mode_names[MODES] = { "auto", "root", "capability", "rootless" };

int lcp_mode_of(const char *name)
{
	for (int mode = 0; mode < MODES; mode++)
		if (!strcmp(mode_names[mode], name))
			return mode;
	return -1;
}

const char *lcp_mode_name(int mode)
{
	return mode_names[mode];
}

const char *lcp_stage_text(int stage)
{
	switch (stage) {
	case LCP_STAGE_UNSHARE: return "making the namespaces";
	case LCP_STAGE_IDMAP: return "mapping the user and group id";
	case LCP_STAGE_FORK: return "starting a process";
	case LCP_STAGE_PROC: return "mounting /proc";
	case LCP_STAGE_LAST_PID: return "setting the first pid of the namespace";
	case LCP_STAGE_CAPABILITIES: return "handing criu its capability";
	default: return "restoring";
	}
}

static int has(const struct own_status *own, int capability)
{
	return !!(own->effective & capability_bit(capability));
}

/* Python's own, and the two that glibc keeps for its threads. */
static const uint64_t pythons_own = (uint64_t)1 << (SIGPIPE - 1) | (uint64_t)1 << (SIGXFSZ - 1) | (uint64_t)3 << 31;

int lcp_read_ignored(struct own_status *own)
{
	struct sigaction action;

	memset(own, 0, sizeof(*own));
	for (int sig = 1; sig <= 64; sig++)
		if (!sigaction(sig, NULL, &action) && action.sa_handler == SIG_IGN)
			own->all_ignored |= (uint64_t)1 << (sig - 1);
	own->ignored = own->all_ignored & ~pythons_own;
	return 0;
}

int lcp_read_own_status(struct own_status *own, struct problem *problem)
{
	char status[8192];

	if (lcp_read_text("/proc/self/status", status, sizeof(status)) < 0)
		return lcp_failed(problem, "/proc/self/status cannot be read: %s", strerror(errno));
	own->effective = lcp_field_number(status, "CapEff", 16);
	own->permitted = lcp_field_number(status, "CapPrm", 16);
	own->bounding = lcp_field_number(status, "CapBnd", 16);
	own->no_new_privs = lcp_field_number(status, "NoNewPrivs", 10) == 1;
	own->seccomp_filters = (long)lcp_field_number(status, "Seccomp_filters", 10);
	own->all_ignored = lcp_field_number(status, "SigIgn", 16);
	own->ignored = own->all_ignored & ~pythons_own;
	return 0;
}

/* ---- what stops a mode ------------------------------------------------ */

static int is_reduced(const struct snapshot *snapshot)
{
	return !!(snapshot->facts->flags & RECORD_REDUCED_BOUNDING);
}

static int by_number(const void *a, const void *b)
{
	return (*(const gid_t *)a > *(const gid_t *)b) - (*(const gid_t *)a < *(const gid_t *)b);
}

/* The supplementary groups of this process as a process in this mode's namespace sees them, sorted; their number. */
static int groups_in(enum mode mode, gid_t *groups, int size)
{
	int count = getgroups(size, groups);
	char text[32];

	if (mode == MODE_ROOTLESS && !getenv(SERVICE_VARIABLE) &&
	    lcp_read_text("/proc/sys/kernel/overflowgid", text, sizeof(text)) > 0)
		for (int i = 0; i < count; i++)
			if (groups[i] != getegid())
				groups[i] = (gid_t)strtoul(text, NULL, 10); /* only one's own is mapped */
	if (count > 0)
		qsort(groups, (size_t)count, sizeof(*groups), by_number);
	return count;
}

/* Whether a restored process can get the ids and groups of the dumped one. */
static int differs_harmlessly(enum mode mode, const struct own_status *own, const struct snapshot *snapshot)
{
	const struct record_facts *facts = snapshot->facts;
	static gid_t have[65536]; /* NGROUPS_MAX of the kernel */
	int count, i = 0;

	if (mode == MODE_ROOT && has(own, CAPABILITY_SETUID) && has(own, CAPABILITY_SETGID))
		return 1;
	if (facts->uid != geteuid() || facts->gid != getegid())
		return 0;
	if (!facts->groups.count)
		return 1; /* criu leaves them alone (restore_creds in criu/pie/restorer.c) */
	count = groups_in(mode, have, 65536);
	if (count < 0 || (uint32_t)count != facts->groups.count)
		return 0;
	record_for_each(uint32_t, group, snapshot->record, facts->groups)
		if (*group != have[i++])
			return 0;
	return 1;
}

static void add_groups(struct problem *problem, const gid_t *groups, int count)
{
	if (count <= 0)
		lcp_problem_add(problem, "none");
	for (int i = 0; i < count; i++)
		lcp_problem_add(problem, "%s%u", i ? "," : "", groups[i]);
}

/* Name what the restored process would have to be and cannot become; -1. */
static int other_identity(enum mode mode, const struct snapshot *snapshot, struct problem *problem)
{
	const struct record_facts *facts = snapshot->facts;
	static gid_t have[65536]; /* NGROUPS_MAX of the kernel */

	lcp_problem_add(problem, "the program ran with ");
	if (facts->uid != geteuid())
		lcp_problem_add(problem, "uid %u (this process has %u) ", facts->uid, geteuid());
	if (facts->gid != getegid())
		lcp_problem_add(problem, "gid %u (this process has %u) ", facts->gid, getegid());
	if (facts->groups.count) {
		lcp_problem_add(problem, "supplementary groups ");
		add_groups(problem, (const void *)((const char *)snapshot->record + facts->groups.offset),
			   (int)facts->groups.count);
		lcp_problem_add(problem, " (this process has ");
		add_groups(problem, have, groups_in(mode, have, 65536));
		lcp_problem_add(problem, " there) ");
	}
	return stopped(problem, "which only root with CAP_SETUID and CAP_SETGID can give it");
}

/* When pid 1 was started, in clock ticks after the boot; 0 where /proc hides it. */
static unsigned long long start_of_init(void)
{
	unsigned long long start = 0;
	char text[1024], *at;

	if (lcp_read_text("/proc/1/stat", text, sizeof(text)) < 0 || !(at = strrchr(text, ')')))
		return 0;
	for (int column = 2; column < 22 && at; column++)
		at = strchr(at + 1, ' ');
	if (at)
		start = strtoull(at, NULL, 10);
	return start;
}

/* The file that says that namespaces can be made from this process's ones, under its filters. */
static int namespaces_work(char path[PATH_MAX], const struct own_status *own)
{
	static const char *const places[] = { "/proc/self/ns/user", "/proc/self/ns/mnt", "/proc/self/ns/pid" };
	unsigned long long inodes[3] = { 0 };
	const char *base = lcp_scratch_directory(NULL);
	struct stat status;
	char boot[9];

	if (lcp_read_text("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) < 0)
		strcpy(boot, "unknown"); /* /proc/sys is hidden */
	if (!base)
		return -1;
	for (int i = 0; i < 3; i++)
		if (!stat(places[i], &status))
			inodes[i] = status.st_ino;
	/* Numbers of namespaces are used again; with the start of their pid 1 they tell one container from the next. */
	return snprintf(path, PATH_MAX, "%s/namespaces-%s-%u-%llu-%llu-%llu-%llu-%ld", base, boot, getegid(), inodes[0],
			inodes[1], inodes[2], start_of_init(), own->seccomp_filters) < PATH_MAX ? 0 : -1;
}

void lcp_forget_namespaces(const struct own_status *own)
{
	char path[PATH_MAX];

	if (!namespaces_work(path, own))
		unlink(path);
}

static uint64_t needed_ambient(const struct snapshot *snapshot)
{
	char yama[16];
	int privileged = lcp_read_text("/proc/sys/kernel/yama/ptrace_scope", yama, sizeof(yama)) > 0 && atoi(yama) >= 2;

	return capability_bit(CAPABILITY_CHECKPOINT_RESTORE) |
	       (is_reduced(snapshot) ? capability_bit(CAPABILITY_SETPCAP) : 0) |
	       (privileged ? capability_bit(CAPABILITY_SYS_PTRACE) : 0);
}

/* What stops a user + pid + mount namespace; that they work is remembered until the next boot. */
static int rootless_obstacle(const char *criu, const struct own_status *own, const struct snapshot *snapshot,
			     struct problem *problem)
{
	uint64_t carried = lcp_file_capabilities(criu);
	char path[PATH_MAX];
	int stage, error;

	if (carried && needed_ambient(snapshot) & ~carried)
		return stopped(problem, "%s carries file capabilities that take the place of those it would be given",
			       criu);
	if (getenv(SERVICE_VARIABLE))
		return 0; /* inside of one already */
	if (namespaces_work(path, own))
		return 0; /* the restore will say what is wrong with the directory */
	if (!access(path, F_OK))
		return 0;
	error = lcp_probe_namespaces(LCP_NS_USER | LCP_NS_PID, &stage);
	if (error)
		return stopped(problem, "%s failed (%s)", lcp_stage_text(stage), strerror(-error));
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	return 0;
}

static int capability_obstacle(const char *criu, const struct own_status *own, const struct snapshot *snapshot,
			       struct problem *problem)
{
	uint64_t carried = lcp_file_capabilities(criu), needed = needed_ambient(snapshot);
	struct statvfs system;

	if ((carried & needed) == needed && !(carried & ~own->bounding) && !own->no_new_privs && !access(criu, X_OK) &&
	    !statvfs(criu, &system) && !(system.f_flag & ST_NOSUID))
		return 0;
	return stopped(problem, carried ?
			       "the file capabilities of %s are too few or without effect here" :
							       "%s carries no file capability", criu);
}

static int root_obstacle(const struct own_status *own, const struct snapshot *snapshot, struct problem *problem)
{
	uint64_t wanted = snapshot->facts->capabilities;

	if (geteuid() != 0)
		return stopped(problem, "this process is not root");
	if (!has(own, CAPABILITY_CHECKPOINT_RESTORE) && !has(own, CAPABILITY_SYS_ADMIN))
		return stopped(problem, "root has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN here");
	if (wanted & ~own->permitted)
		return stopped(problem, "the program had capabilities when it was dumped that this root "
				       "has not (%llx)", (unsigned long long)(wanted & ~own->permitted));
	if (is_reduced(snapshot) && !has(own, CAPABILITY_SETPCAP))
		return stopped(problem, "root has no cap_setpcap here, which a restore needs to reduce "
				       "the capability bounding set as it was");
	return 0;
}

static int obstacle(enum mode mode, const struct decision *decision, const struct own_status *own,
		    const struct snapshot *snapshot, struct problem *problem)
{
	int result;

	if (mode == MODE_ROOT)
		result = root_obstacle(own, snapshot, problem);
	else if (mode == MODE_ROOTLESS)
		result = rootless_obstacle(decision->plain, own, snapshot, problem);
	else
		result = capability_obstacle(lcp_capable_criu(decision->plain), own, snapshot, problem);
	if (!result && !differs_harmlessly(mode, own, snapshot))
		result = other_identity(mode, snapshot, problem);
	return result;
}

static void choose_mode(struct decision *decision, enum mode mode)
{
	decision->mode = mode;
	decision->criu = mode == MODE_CAPABILITY ? lcp_capable_criu(decision->plain) : decision->plain;
}

int lcp_decide_mode(struct decision *decision, const char *wanted, const struct own_status *own,
		    const struct snapshot *snapshot, struct problem *problem)
{
	enum mode order[] = { MODE_ROOT, MODE_ROOTLESS, MODE_CAPABILITY };
	enum mode dumped_in = (enum mode)snapshot->facts->mode;
	int mode;

	if (lcp_find_criu(decision->plain, problem))
		return -1;
	if (!wanted || !*wanted)
		wanted = getenv(MODE_VARIABLE);
	mode = wanted && *wanted ? lcp_mode_of(wanted) : MODE_AUTO;
	if (mode < 0)
		return lcp_failed(problem, "there is no mode '%s'; the modes are auto, root, capability, rootless",
				  wanted);
	if (mode != MODE_AUTO) {
		choose_mode(decision, (enum mode)mode);
		if (!obstacle((enum mode)mode, decision, own, snapshot, NULL))
			return 0;
		lcp_failed(problem, "mode %s does not work here: ", wanted);
		return obstacle((enum mode)mode, decision, own, snapshot, problem);
	}
	/* The mode of the dump first; the others stay in order. */
	for (int i = 2; i > 0; i--) {
		if (order[i] != dumped_in)
			continue;
		memmove(order + 1, order, sizeof(*order) * (size_t)i);
		order[0] = dumped_in;
		break;
	}
	for (int i = 0; i < 3; i++)
		if (!obstacle(order[i], decision, own, snapshot, NULL)) {
			choose_mode(decision, order[i]);
			return 0;
		}
	/* Once more, for the words. */
	lcp_failed(problem, "neither dump nor restore is allowed here");
	for (int i = 0; i < 3; i++) {
		lcp_problem_add(problem, "%s%s: ", i ? "; " : ": ", mode_names[order[i]]);
		obstacle(order[i], decision, own, snapshot, problem);
	}
	return stopped(problem, "; libcriu-py doctor says what to do");
}

/* ---- namespaces -------------------------------------------------------- */

/* Where pids of the restore's helpers begin, clear of those of the image. */
static int clear_of(const struct snapshot *snapshot)
{
	uint32_t least = INT_MAX, most = 0;

	record_for_each(uint32_t, pid, snapshot->record, snapshot->facts->pids) {
		least = *pid < least ? *pid : least;
		most = *pid > most ? *pid : most;
	}
	return least > HELPER_PIDS || most >= INT_MAX ? 0 : (int)most + 1;
}

static int any_taken(const struct snapshot *snapshot)
{
	record_for_each(uint32_t, pid, snapshot->record, snapshot->facts->pids)
		if ((pid_t)*pid > 0 && (!kill((pid_t)*pid, 0) || errno != ESRCH))
			return 1;
	return 0;
}

void lcp_decide_isolation(struct isolation *isolation, const struct decision *decision, const struct own_status *own,
		     const struct snapshot *snapshot, int isolate)
{
	memset(isolation, 0, sizeof(*isolation));
	if (decision->mode != MODE_ROOTLESS) {
		if (!isolate && !any_taken(snapshot))
			return;
		if (decision->mode == MODE_ROOT && has(own, CAPABILITY_SYS_ADMIN)) {
			isolation->namespaces = LCP_NS_PID;
			isolation->last_pid = clear_of(snapshot);
			return;
		}
		if (!differs_harmlessly(MODE_ROOTLESS, own, snapshot) ||
		    rootless_obstacle(decision->plain, own, snapshot, NULL))
			return; /* criu will say which pid is taken */
	}
	isolation->namespaces = LCP_NS_USER | LCP_NS_PID;
	isolation->ambient = needed_ambient(snapshot);
	isolation->last_pid = clear_of(snapshot);
}
