#define _GNU_SOURCE
#include "launcher/automatic.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "launcher/background.h"
#include "launcher/conventional.h"
#include "launcher/copy.h"
#include "launcher/learning.h"
#include "launcher/messages.h"
#include "launcher/target.h"
#include "restore/finding.h"
#include "restore/interpreter.h"
#include "restore/launch.h"
#include "restore/problem.h"
#include "restore/snapshot.h"

#define NOT_FOUND 127          /* as of a shell */
#define WATCHED 5              /* copies of a snapshot that are watched, which learn what it lacks */
#define MOST_COUNTED (1 << 20) /* bytes of a file that has one for each start */
#define LARGEST_FILE (1 << 16)
#define REFUSED_FOR 86400      /* seconds after which a program is tried again that could not be snapshotted */
#define SECOND 1000000000LL
#define SHIM "\n# libcriu-py shim, format 1\nprogram: "

/* The place of one program in the cache. */
struct entry {
	char base[PATH_MAX / 2], path[PATH_MAX / 2 + 96];
	int is_writable;
};

/* Of this start: they are large, and there is one in a process. */
static struct target target;
static struct entry entry;
static struct problem problem;

static int is_interpreter(void)
{
	return target.kind && *target.kind == 't';
}

/* ---- the cache ---------------------------------------------------------- */

/* Find the directory of the cache; 0 or -1. */
static int find_base(char *base, size_t room)
{
	static const struct {
		const char *variable, *below;
	} places[] = { { "LIBCRIU_PY_CACHE", "" }, { "XDG_CACHE_HOME", "/libcriu_py" }, { "HOME", "/.cache/libcriu_py" } };

	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		const char *value = getenv(places[i].variable);

		if (value && *value == '/')
			return snprintf(base, room, "%s%s", value, places[i].below) < (int)room ? 0 : -1;
	}
	return -1;
}

/* Modules of some programs look at the working directory when they are imported: these have an entry for each. */
static void name_entry_of_directory(void)
{
	size_t length = strlen(entry.path);
	static char cwd[PATH_MAX];

	snprintf(cwd, sizeof(cwd), "%s/by-directory", entry.path);
	if (!access(cwd, F_OK) && getcwd(cwd, sizeof(cwd)))
		snprintf(entry.path + length, sizeof(entry.path) - length, "/at-%016" PRIx64, lcp_hash(cwd));
}

/* The length of the path that is part of a key: python, python3 and others in a directory are one interpreter. */
static int key_length(void)
{
	return (int)(is_interpreter() ? strrchr(target.python, '/') - target.python : (ptrdiff_t)strlen(target.python));
}

static int name_entry(void)
{
	AUTO_FREE char *key = NULL, *real = is_interpreter() ? realpath(target.python, NULL) : NULL;

	if (find_base(entry.base, sizeof(entry.base)) ||
	    asprintf(&key, "%s\n%s\n%.*s%s", target.kind, target.value, key_length(), target.python, real ? real : "") < 0)
		return -1;
	snprintf(entry.path, sizeof(entry.path), "%s/auto/%016" PRIx64, entry.base, lcp_hash(key));
	name_entry_of_directory();
	return 0;
}

/* ---- what is noted there -------------------------------------------------- */

/* Add to a file of the entry unless that is large; its size before, or -1. */
static off_t append(const char *name, off_t most, const char *text)
{
	char path[PATH_MAX];
	AUTO_CLOSE int fd = -1;
	struct stat status;

	snprintf(path, sizeof(path), "%s/%s", entry.path, name);
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0 || fstat(fd, &status))
		return -1;
	if (status.st_size < most && write(fd, text, strlen(text)) < 0)
		return -1;
	return status.st_size;
}

static void note_miss(const char *why)
{
	AUTO_FREE char *line = NULL;

	if (asprintf(&line, "%lld %s\n", (long long)time(NULL), why) > 0)
		append("misses", LARGEST_FILE, line);
}

/* Whether the program could not be snapshotted, and nothing has changed that counted then (libcriu_py/auto/entry.py). */
static int is_refused(void)
{
	char path[PATH_MAX], *text AUTO_FREE = NULL, *line, *rest;
	struct stat status;

	snprintf(path, sizeof(path), "%s/refused", entry.path);
	if (stat(path, &status) || time(NULL) - status.st_mtime > REFUSED_FOR)
		return 0;
	text = lcp_read_whole(AT_FDCWD, path, LARGEST_FILE);
	if (!text || !strtok_r(text, "\n", &rest)) /* the reason */
		return 0;
	while ((line = strtok_r(NULL, "\n", &rest))) {
		char *size = strchr(line, '\t'), *changed;

		if (!size)
			return 0;
		*size++ = '\0';
		if (stat(line, &status) || status.st_size != strtoll(size, &changed, 10) ||
		    status.st_mtim.tv_sec * SECOND + status.st_mtim.tv_nsec != strtoll(changed, NULL, 10))
			return 0;
	}
	return 1;
}

/* The environment of a conventional start; pytest has a plugin that notes what it imports, and needs no other. */
static char **learning_env(char **env)
{
	return is_interpreter() ? env : lcp_learning_env(env, entry.base, entry.path);
}

/* ---- the start -------------------------------------------------------------- */

/* Count a start from the snapshot, and have one of the first of them watched; the size of the count before. */
static off_t begin_copy(const struct background *job, const char *watch)
{
	off_t before = entry.is_writable ? append("hits", MOST_COUNTED, ".") : WATCHED;
	char runs[PATH_MAX];
	int fd;

	snprintf(runs, sizeof(runs), "%s/runs", entry.path); /* of one that was not watched */
	if (before < 0 || (before >= WATCHED && (!entry.is_writable || access(runs, F_OK))))
		return before;
	fd = open(watch, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return before;
	close(fd);
	if (lcp_background_start(job))
		unlink(watch);
	return before;
}

static void end_copy(const char *watch, off_t before)
{
	char path[PATH_MAX];

	lcp_write_file(watch, "none"); /* that it is not watched for: there is no copy */
	snprintf(path, sizeof(path), "%s/hits", entry.path);
	if (entry.is_writable && before >= 0 && truncate(path, before))
		unlink(path);
}

/* Restore the program, and return only if that cannot be, with the reason; 1 if another snapshot would not do either. */
static int try_snapshot(struct launch *launch)
{
	const struct background job = { .entry = entry.path, .target = &target, .env = launch->env, .is_copy = 1 };
	static char directory[PATH_MAX], watch[PATH_MAX];
	struct snapshot snapshot;
	off_t before;

	snprintf(directory, sizeof(directory), "%s/snap", entry.path);
	if (access(directory, F_OK) && errno == ENOENT) {
		lcp_unusable(&problem, "there is no snapshot yet");
		return 0;
	}
	launch->directory = directory;
	if (lcp_snapshot_open(&snapshot, directory, &problem))
		return 0;
	if (lcp_is_interpreter(&snapshot) && lcp_interpreter_is_to_start(&snapshot, launch->arguments)) {
		lcp_unusable(&problem, "a copy cannot be the interpreter that is asked for here (docs/warm-python.md)");
		return !lcp_variables_differ(&snapshot);
	}
	lcp_watch_path(watch, entry.path);
	before = begin_copy(&job, watch);
	lcp_be_copy(launch, &snapshot, &problem);
	end_copy(watch, before);
	return 0;
}

static int start_conventionally(struct launch *launch, sighandler_t xfsz)
{
	signal(SIGXFSZ, xfsz);
	if (!*launch->conventional[0] || (!strchr(launch->conventional[0], '/') && !lcp_find_on_path(launch->conventional[0]))) {
		lcp_say(launch->conventional[0], " was not found: it is neither a file nor a command on PATH", "");
		return NOT_FOUND;
	}
	lcp_start_conventionally(launch->conventional, launch->conventional_env);
	return LAUNCHER_FAILED;
}

/* Know the conventional start, and the place in the cache; 0, 1 if that is the only start, or -1. */
static int prepare(struct launch *launch)
{
	const char *off = getenv("LIBCRIU_PY_AUTO");

	launch->quiet = 1;
	launch->arguments = target.arguments;
	launch->main = target.typed;
	launch->conventional = lcp_conventional_argv(target.conventional, target.arguments);
	launch->conventional_env = launch->env;
	if (!launch->conventional)
		return -1;
	if (!target.kind || (off && !strcmp(off, "0")) || name_entry())
		return 1;
	lcp_make_directories(entry.path);
	entry.is_writable = lcp_is_own_place(entry.path);
	if (is_interpreter()) {
		launch->executable = target.python;
		launch->env = lcp_env_with_entry(launch->env, entry.path);
		launch->conventional_env = launch->env;
	}
	return 0;
}

static int start(struct launch *launch)
{
	struct background job = { .entry = entry.path, .target = &target, .env = launch->env };
	sighandler_t xfsz = signal(SIGXFSZ, SIG_IGN); /* as Python does */
	int result = prepare(launch), is_tried = 0;

	launch->xfsz_ignored = xfsz == SIG_IGN;
	if (result < 0)
		return LAUNCHER_FAILED;
	if (!result) {
		lcp_background_see(&job);
		is_tried = try_snapshot(launch);
	}
	if (!result && entry.is_writable) {
		note_miss(problem.text);
		if (!is_tried && !is_refused() && !lcp_background_start(&job))
			launch->conventional_env = learning_env(launch->env);
	}
	return start_conventionally(launch, xfsz);
}

int lcp_automatic_learn(struct launch *launch, const char *own, char **words)
{
	int result;

	lcp_target_find(&target, words, own);
	result = prepare(launch);
	if (result < 0)
		return LAUNCHER_FAILED;
	if (!result && entry.is_writable)
		launch->conventional_env = learning_env(launch->env);
	return start_conventionally(launch, SIG_DFL);
}

int lcp_automatic(struct launch *launch, const char *own, char **words)
{
	lcp_target_find(&target, words, own);
	return start(launch);
}

int lcp_automatic_interpreter(struct launch *launch, const char *own, char **words)
{
	lcp_target_take_interpreter(&target, words, own);
	return start(launch);
}

int lcp_automatic_shim(struct launch *launch, char **words)
{
	char *text = lcp_read_whole(AT_FDCWD, words[0], LARGEST_FILE), *program = text ? strstr(text, SHIM) : NULL;

	if (!program) {
		lcp_say(words[0], " is not a shim of libcriu-py; make it anew: libcriu-py shim NAME --into DIR", "");
		return SNAPSHOT_UNUSABLE;
	}
	program += strlen(SHIM);
	program[strcspn(program, "\n")] = '\0';
	words[0] = program;
	lcp_target_find(&target, words, NULL);
	return start(launch);
}

int lcp_automatic_tell(const char *own, char **words)
{
	if (!*words || lcp_target_find(&target, words, own) || !target.kind || name_entry())
		return 1;
	printf("%s%c%s%c%s%c%s", entry.path, 0, target.kind, 0, target.value, 0, target.python);
	return fflush(stdout) ? 1 : 0;
}
