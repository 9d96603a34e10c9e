/* What a user, pid and mount namespace of one's own takes, and the capabilities for it. */
#define _GNU_SOURCE
#include "supervise/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/files.h"
#include "common/process.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80 /* Linux 5.6; older C libraries lack it */
#endif

static int set_capabilities(uint64_t bits)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		uint32_t word = (uint32_t)(bits >> (32 * i));

		data[i].effective = data[i].permitted = data[i].inheritable = word;
	}
	return (int)syscall(SYS_capset, &header, data);
}

/* Keep these capabilities only, and carry them over an exec. */
int lcp_set_ambient(uint64_t bits)
{
	if (set_capabilities(bits))
		return -1;
	for (int cap = 0; cap < 64; cap++)
		if ((bits >> cap) & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return -1;
	return 0;
}

int lcp_drop_capabilities(void)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return -1;
	return set_capabilities(0);
}

/*
 * What is executed from here on gets no capability by being root's, or from its
 * file. Those that are to be ambient must be inheritable before: what is outside
 * of the bounding set cannot become so (cap_capset in security/commoncap.c).
 */
int lcp_empty_bounding_set(uint64_t inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return -1;
	for (int i = 0; i < 2; i++)
		data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
	if (syscall(SYS_capset, &header, data))
		return -1;
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			return -1;
	return 0;
}

/* Own ids only: the program is who it was, and root of nothing. */
int lcp_map_own_ids(uid_t uid, gid_t gid)
{
	char line[64];

	snprintf(line, sizeof(line), "%u %u 1\n", uid, uid);
	if (lcp_write_file("/proc/self/uid_map", line))
		return -1;
	if (lcp_write_file("/proc/self/setgroups", "deny") && errno != ENOENT)
		return -1;
	snprintf(line, sizeof(line), "%u %u 1\n", gid, gid);
	return lcp_write_file("/proc/self/gid_map", line);
}

/* In the process that is to be the parent of pid 1. */
int lcp_make_namespaces(int namespaces, int *stage)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int flags = 0;

	if (namespaces & LCP_NS_USER)
		flags |= CLONE_NEWUSER;
	if (namespaces & LCP_NS_PID)
		flags |= CLONE_NEWPID | CLONE_NEWNS;
	*stage = LCP_STAGE_UNSHARE;
	if (flags && unshare(flags))
		return -errno;
	*stage = LCP_STAGE_IDMAP;
	if ((namespaces & LCP_NS_USER) && lcp_map_own_ids(uid, gid))
		return -errno;
	return 0;
}

/* In pid 1 of the new pid namespace. */
int lcp_mount_own_proc(int namespaces)
{
	/* Without a user namespace of its own a mount would show up outside. */
	if (!(namespaces & LCP_NS_USER) && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return -errno;
	return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) ? -errno : 0;
}

#define SECOND 1000000000LL
#define OFFSETS "/proc/self/timens_offsets"

/* Add to `text` the line of timens_offsets that makes a clock `wanted` now; `inherited` is what the file says. */
static int add_offset(char *text, size_t size, clockid_t clock, const char *name, const char *inherited, int64_t wanted)
{
	const char *line = strstr(inherited, name);
	long long seconds, nanoseconds, offset;
	size_t length = strlen(text);
	struct timespec now;
	char *end;

	if (!line || clock_gettime(clock, &now))
		return -1;
	seconds = strtoll(line + strlen(name), &end, 10);
	nanoseconds = strtoll(end, NULL, 10);
	offset = wanted - (now.tv_sec * SECOND + now.tv_nsec) + seconds * SECOND + nanoseconds;
	seconds = offset / SECOND - (offset % SECOND < 0); /* the nanoseconds are positive */
	snprintf(text + length, size - length, "%s %lld %lld\n", name, seconds, offset - seconds * SECOND);
	return 0;
}

/*
 * Let the monotonic clocks of children go on from these readings, in a time namespace (time_namespaces(7)). criu does
 * that too, but not in its unprivileged mode (prepare_timens in criu/timens.c). It takes CAP_SYS_ADMIN and CAP_SYS_TIME
 * in the user namespace. Returns -1 if that, the kernel or a filter forbids it: they have the clocks of this process.
 */
int lcp_continue_clocks(int64_t monotonic, int64_t boottime)
{
	char inherited[256], text[128] = "";

	if (unshare(CLONE_NEWTIME))
		return -1;
	lcp_read_text(OFFSETS, inherited, sizeof(inherited));
	if (add_offset(text, sizeof(text), CLOCK_MONOTONIC, "monotonic", inherited, monotonic) ||
	    add_offset(text, sizeof(text), CLOCK_BOOTTIME, "boottime", inherited, boottime))
		return -1;
	/* One write at the beginning is all that the file takes (proc_timens_set_offset in kernel/time/namespace.c). */
	return lcp_write_file(OFFSETS, text);
}

/* In a child of its own: try to make them, and tell how far that came. */
static void try_namespaces(int namespaces, int report)
{
	int values[2], result = lcp_make_namespaces(namespaces, &values[1]);
	pid_t init = result ? -1 : fork();

	if (init > 0) {
		lcp_wait_for(init);
		_exit(0);
	}
	values[0] = result;
	if (init == 0) {
		values[1] = LCP_STAGE_PROC;
		values[0] = lcp_mount_own_proc(namespaces);
	} else if (!result) {
		values[1] = LCP_STAGE_FORK;
		values[0] = -errno;
	}
	_exit(write(report, values, sizeof(values)) < 0);
}

int lcp_probe_namespaces(int namespaces, int *stage)
{
	int report[2], values[2];
	pid_t child;
	ssize_t n;

	*stage = LCP_STAGE_FORK;
	if (pipe2(report, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child == 0)
		try_namespaces(namespaces, report[1]);
	values[0] = child < 0 ? -errno : -EIO;
	close(report[1]);
	if (child > 0) {
		do
			n = read(report[0], values, sizeof(values));
		while (n < 0 && errno == EINTR);
		if (n == (ssize_t)sizeof(values))
			*stage = values[1];
		lcp_wait_for(child);
	}
	close(report[0]);
	return values[0];
}
