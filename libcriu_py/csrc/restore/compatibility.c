#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/finding.h"
#include "restore/interpreter.h"
#include "restore/problem.h"
#include "restore/record.h"
#include "restore/snapshot.h"
#include "restore/sums.h"

#define FIRST_PROCESSOR 8192 /* bytes of /proc/cpuinfo that hold it */
#define PIECE 256            /* less than what follows the flags in it */
#define PROGRAM_MODULE 2     /* libcriu_py/snapshot/record.py, _KINDS */
#define REASONS 3            /* reasons given in full */
#define SECOND 1000000000LL

int lcp_finding_add(struct finding *finding)
{
	if (finding->is_listed) {
		if (finding->count++)
			fwrite(finding->problem->text, 1, strlen(finding->problem->text) + 1, stdout);
		*finding->problem->text = '\0';
		return 1;
	}
	if (finding->count++ == 0)
		lcp_unusable(finding->problem, "%s cannot be restored here: ", finding->path);
	else if (finding->count <= REASONS)
		lcp_problem_add(finding->problem, "; ");
	return finding->count <= REASONS;
}

/* ---- the machine ------------------------------------------------------ */

/*
 * The feature flags of the first processor, with a space before and after each; NULL with errno. The kernel makes as many
 * processors' text as a read has room for, which takes 20 us for each.
 */
static const char *processor_flags(char *buffer)
{
	AUTO_CLOSE int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	char *line = buffer, *end = buffer;
	ssize_t n;

	while (fd >= 0 && end < buffer + FIRST_PROCESSOR && (n = read(fd, end, PIECE)) > 0) {
		end += n;
		for (char *next; (next = memchr(line, '\n', (size_t)(end - line))); line = next + 1) {
			if (strncmp(line, "flags", 5) && strncmp(line, "Features", 8))
				continue;
			*next++ = ' ';
			*next = '\0';
			line = strchr(line, ':');
			return line ? line + 1 : "";
		}
	}
	return fd < 0 || n < 0 ? NULL : "";
}

static int has_flag(const char *flags, const char *flag, size_t length)
{
	for (const char *at = flags; (at = memmem(at, strlen(at), flag, length)); at += length)
		if (at > flags && at[-1] == ' ' && (at[length] == ' ' || at[length] == '\0'))
			return 1;
	return 0;
}

/* Name the recorded flags that this processor lacks. */
static void compare_flags(struct finding *finding, const char *recorded, const char *flags)
{
	size_t length = strlen(recorded);
	int missing = 0;

	/* On the machine of the dump, or a like one, they are the same in the same order. */
	if (*flags == ' ' && !strncmp(flags + 1, recorded, length) && (flags[1 + length] == ' ' || !flags[1 + length]))
		return;
	for (const char *flag = recorded; *flag; flag += length + (flag[length] == ' ')) {
		length = strcspn(flag, " ");
		if (!length || has_flag(flags, flag, length))
			continue;
		if (missing++)
			lcp_problem_add(finding->problem, " %.*s", (int)length, flag);
		else
			found(finding, "this processor lacks %.*s", (int)length, flag);
	}
	if (missing)
		lcp_problem_add(finding->problem, ", which the program may have chosen to use; "
				"make the snapshot on the oldest of your machines");
}

static void check_machine(struct finding *finding, const struct snapshot *snapshot)
{
	const char *arch = snapshot_text(snapshot, snapshot->facts->arch);
	static char buffer[FIRST_PROCESSOR + PIECE + 2];
	const char *flags = processor_flags(buffer);
	struct utsname system;

	uname(&system);
	if (strcmp(system.machine, arch))
		found(finding, "the snapshot is for %s processors, this is a %s", arch, system.machine);
	else if (!flags)
		found(finding, "/proc/cpuinfo cannot be read (%s)", strerror(errno));
	else
		compare_flags(finding, snapshot_text(snapshot, snapshot->facts->cpu_flags), flags);
}

/* ---- user and files --------------------------------------------------- */

static void check_identity(struct finding *finding, const struct record_facts *facts)
{
	if (geteuid() == 0 && facts->engine != RECORD_NATIVE)
		return; /* criu may be able to make it that user's, which is found out later */
	if (facts->uid != geteuid())
		found(finding, "the program ran as uid %u, this is uid %u", facts->uid, geteuid());
	else if (facts->gid != getegid())
		found(finding, "the program ran with gid %u, this is gid %u; change it with newgrp or sg", facts->gid,
		      getegid());
}

static void add_file(struct finding *finding, const struct snapshot *snapshot, const struct record_file *file, int wrong,
		     const struct stat *status, const struct problem *unsafe)
{
	const char *name = snapshot_text(snapshot, file->name);

	if (wrong == SUMS_UNSAFE)
		found(finding, "%s", unsafe->text);
	else if (wrong == SUMS_SIZE)
		found(finding, "%s/%s has %lld bytes instead of %" PRIu64 "; make the snapshot anew", snapshot->path,
		      name, (long long)status->st_size, file->size);
	else if (wrong == SUMS_DIFFER)
		found(finding, "%s/%s is damaged: its checksum differs; make the snapshot anew", snapshot->path, name);
	else if (wrong)
		found(finding, "%s/%s cannot be read (%s); make the snapshot anew", snapshot->path, name,
		      strerror(-wrong));
}

static void check_files(struct finding *finding, const struct snapshot *snapshot, int verify)
{
	int before = finding->count;
	struct problem unsafe;
	struct stat status;
	struct sums sums;

	lcp_sums_begin(&sums, snapshot);
	record_for_each(struct record_file, file, snapshot->record, snapshot->facts->files)
		add_file(finding, snapshot, file, lcp_sums_look(&sums, file, &status, &unsafe), &status, &unsafe);
	if (finding->count == before && lcp_sums_are_due(&sums, verify)) {
		record_for_each(struct record_file, file, snapshot->record, snapshot->facts->files)
			if (file->flags & RECORD_LARGE)
				add_file(finding, snapshot, file, lcp_sums_read(&sums, file), &status, &unsafe);
		if (finding->count == before)
			lcp_sums_note(&sums, 1);
	}
	lcp_sums_end(&sums);
}

static void check_mount(struct finding *finding, const struct snapshot *snapshot)
{
	struct statvfs status;

	if (snapshot->facts->flags & RECORD_MAPS_CODE && !fstatvfs(snapshot->directory, &status) &&
	    status.f_flag & ST_NOEXEC)
		found(finding,
		      "%s is on a file system that is mounted noexec, from which the code of libraries cannot be "
		      "mapped; move it to another one",
		      snapshot->path);
}

/* Layers of container images keep no more of the time than its second. */
int lcp_is_touched(const struct record_compared *file, const struct stat *status)
{
	long long second = file->mtime_ns / SECOND, rest = file->mtime_ns % SECOND;

	if (rest < 0) { /* before 1970 */
		rest += SECOND;
		second--;
	}
	return status->st_mtim.tv_sec != second || (status->st_mtim.tv_nsec && status->st_mtim.tv_nsec != rest);
}

int lcp_is_changed(const struct record_compared *file, const struct stat *status)
{
	return (uint64_t)status->st_size != file->size || lcp_is_touched(file, status);
}

/* Compare files of the dump; `role` says what they are for. */
static void check_compared(struct finding *finding, const struct snapshot *snapshot, struct record_list list,
			   const char *role)
{
	record_for_each(struct record_compared, file, snapshot->record, list) {
		const char *path = snapshot_text(snapshot, file->path);
		mode_t then = file->mode & 07777;
		struct stat status;

		if (file->size == RECORD_ABSENT) {
			if (!stat(path, &status))
				found(finding, "%s, %s, was not there at the dump; make the snapshot anew (--replace)", path,
				      role);
			continue;
		}
		if (stat(path, &status)) {
			found(finding, "%s, %s, is not there (%s); put it back, or make the snapshot anew (--replace)",
			      path, role, strerror(errno));
			continue;
		}
		/* criu compares the mode of each file with that of the dump (`validate_file` in criu/files-reg.c). */
		if (file->mode && file->mode != status.st_mode)
			found(finding,
			      "%s, %s, has mode %04o, and at the dump %04o; chmod %04o %s, or make the snapshot anew",
			      path, role, status.st_mode & 07777, then, then, path);
		if (lcp_is_changed(file, &status))
			found(finding, "%s, %s, was changed after the dump; make the snapshot anew (--replace)", path,
			      role);
	}
}

/* Compare variables that interpreters read only at their start (libcriu_py/program/start_variables.py). */
static void check_variables(struct finding *finding, const struct snapshot *snapshot)
{
	record_for_each(struct record_variable, variable, snapshot->record, snapshot->facts->variables) {
		const char *name = snapshot_text(snapshot, variable->name), *now = getenv(name);
		const char *then = snapshot_text(snapshot, variable->value);

		now = now ? now : "";
		if (strcmp(now, then))
			found(finding, "%s is %s%s%s, and was %s%s%s when the interpreter of the snapshot started",
			      name, *now ? "'" : "", *now ? now : "not set", *now ? "'" : "", *then ? "'" : "",
			      *then ? then : "not set", *then ? "'" : "");
	}
}

int lcp_variables_differ(const struct snapshot *snapshot)
{
	struct finding finding = { .path = snapshot->path };

	check_variables(&finding, snapshot);
	return finding.count;
}

/*
 * `python -m` imports from the working directory first. A program that was found there at the dump has that directory
 * among those of its sys.path.
 */
static void check_working_directory(struct finding *finding, const struct snapshot *snapshot)
{
	char cwd[PATH_MAX];

	if (snapshot->record->program != PROGRAM_MODULE || !getcwd(cwd, sizeof(cwd)))
		return;
	record_for_each(struct record_compared, directory, snapshot->record, snapshot->facts->directories)
		if (!strcmp(snapshot_text(snapshot, directory->path), cwd))
			return;
	if (lcp_finds_modules(snapshot, cwd))
		found(finding, "%s, from which python -m imports first, has a module that the snapshot has from elsewhere", cwd);
}

static void compare(struct finding *finding, const struct snapshot *snapshot, int verify, int with_mapped)
{
	check_machine(finding, snapshot);
	check_identity(finding, snapshot->facts);
	check_files(finding, snapshot, verify);
	check_mount(finding, snapshot);
	if (with_mapped)
		check_compared(finding, snapshot, snapshot->facts->mapped, "which the program has mapped");
	check_compared(finding, snapshot, snapshot->facts->sources, "whose code the snapshot holds");
	lcp_check_installed(finding, snapshot);
}

static int check(const struct snapshot *snapshot, const struct order *order, int with_mapped, struct problem *problem)
{
	struct finding finding = { problem, snapshot->path, 0, 0 };
	int of_environment, verify;

	if (lcp_verify_level(order, &verify, problem))
		return -1;
	if (!order) {
		check_variables(&finding, snapshot);
		check_working_directory(&finding, snapshot);
	}
	lcp_check_reads(&finding, snapshot, order);
	of_environment = finding.count;
	compare(&finding, snapshot, verify, with_mapped);
	if (problem && finding.count)
		problem->is_stale = !of_environment;
	if (finding.count > REASONS)
		lcp_problem_add(problem, " (and %d more)", finding.count - REASONS);
	return finding.count ? -1 : 0;
}

int lcp_snapshot_check(const struct snapshot *snapshot, const struct order *order, struct problem *problem)
{
	return check(snapshot, order, 1, problem);
}

int lcp_snapshot_check_unmapped(const struct snapshot *snapshot, struct problem *problem)
{
	return check(snapshot, NULL, 0, problem);
}

int lcp_snapshot_list_mismatches(const struct snapshot *snapshot)
{
	struct problem problem = { 0 };
	struct finding finding = { &problem, snapshot->path, 0, 1 };

	if (lcp_is_interpreter(snapshot)) { /* who starts one gives it no environment of its own */
		check_variables(&finding, snapshot);
		lcp_check_reads(&finding, snapshot, NULL);
	}
	compare(&finding, snapshot, VERIFY_ARRIVAL, 1);
	lcp_finding_add(&finding);
	return fflush(stdout) ? LAUNCHER_FAILED : 0;
}
