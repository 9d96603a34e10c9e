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
#include "launcher/messages.h"
#include "launcher/target.h"
#include "restore/finding.h"
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

/* The module that a conventional start imports first; it notes what the program has imported. */
extern const char learning_begin[], learning_end[];
__asm__(".pushsection .rodata\n"
	"learning_begin: .incbin \"../auto/learning.py\"\n"
	"learning_end: .byte 0\n"
	".popsection");

/* The place of one program in the cache. */
struct entry {
	char base[PATH_MAX / 2], path[PATH_MAX / 2 + 96];
	int is_writable;
};

/* Of this start: they are large, and there is one in a process. */
static struct target target;
static struct entry entry;
static struct problem problem;

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

static int name_entry(void)
{
	AUTO_FREE char *key = NULL;

	if (find_base(entry.base, sizeof(entry.base)) ||
	    asprintf(&key, "%s\n%s\n%s", target.kind, target.value, target.python) < 0)
		return -1;
	snprintf(entry.path, sizeof(entry.path), "%s/auto/%016" PRIx64, entry.base, lcp_hash(key));
	name_entry_of_directory();
	return 0;
}

/* Make a directory and those above it, for this user alone. */
static void make_directories(const char *path)
{
	char above[PATH_MAX];

	if (!mkdir(path, 0700) || errno != ENOENT)
		return;
	for (size_t i = 1; path[i] && i < sizeof(above) - 1; i++) {
		if (path[i] != '/')
			continue;
		memcpy(above, path, i);
		above[i] = '\0';
		mkdir(above, 0700);
	}
	mkdir(path, 0700);
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

/* ---- learning -------------------------------------------------------------- */

/* Put the module into the cache once; where it is, or NULL. */
static char *learning_directory(void)
{
	size_t size = (size_t)(learning_end - learning_begin);
	static char path[PATH_MAX], new[PATH_MAX];
	char *directory;
	int fd, is_written;

	if (asprintf(&directory, "%s/learn-%016" PRIx64, entry.base, lcp_hash(learning_begin)) < 0)
		return NULL;
	snprintf(path, sizeof(path), "%s/sitecustomize.py", directory);
	if (!access(path, R_OK))
		return directory;
	make_directories(directory);
	snprintf(new, sizeof(new), "%s/new.%d", directory, (int)getpid());
	fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	is_written = fd >= 0 && write(fd, learning_begin, size) == (ssize_t)size;
	if (fd >= 0)
		close(fd);
	if (is_written && !rename(new, path))
		return directory;
	unlink(new);
	free(directory);
	return NULL;
}

/* Return the environment of a conventional start that notes what it imports; without that where it cannot be. */
static char **learning_env(char **env)
{
	const char *own = getenv("PYTHONPATH");
	char *directory = own && !*own ? NULL : learning_directory(); /* an empty one could not be put back */
	char **copy, *path, *note;
	size_t count = 0;

	while (env[count])
		count++;
	copy = directory ? calloc(count + 3, sizeof(*copy)) : NULL;
	if (!copy)
		return env;
	if (asprintf(&path, "PYTHONPATH=%s%s%s", directory, own ? ":" : "", own ? own : "") < 0 ||
	    asprintf(&note, "LIBCRIU_PY_AUTO_LEARN=%s", entry.path) < 0)
		return env;
	for (size_t i = 0; i < count; i++) /* in the place of the other: the program sees the order */
		copy[i] = own && env[i] + strlen("PYTHONPATH=") == own ? path : env[i];
	copy[count++] = note;
	if (!own)
		copy[count] = path;
	return copy;
}

/* ---- the start -------------------------------------------------------------- */

/* Count a start from the snapshot, and have one of the first of them watched; the size of the count before. */
static off_t begin_copy(const struct background *job, const char *watch)
{
	off_t before = entry.is_writable ? append("hits", MOST_COUNTED, ".") : WATCHED;
	int fd;

	if (before < 0 || before >= WATCHED)
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

/* Restore the program, and return only if that cannot be, with the reason. */
static void try_snapshot(struct launch *launch)
{
	const struct background job = { .entry = entry.path, .target = &target, .env = launch->env, .is_copy = 1 };
	static char directory[PATH_MAX], watch[PATH_MAX];
	struct snapshot snapshot;
	off_t before;

	snprintf(directory, sizeof(directory), "%s/snap", entry.path);
	if (access(directory, F_OK) && errno == ENOENT) {
		lcp_unusable(&problem, "there is no snapshot yet");
		return;
	}
	launch->directory = directory;
	if (lcp_snapshot_open(&snapshot, directory, &problem))
		return;
	lcp_watch_path(watch, entry.path);
	before = begin_copy(&job, watch);
	lcp_be_copy(launch, &snapshot, &problem);
	end_copy(watch, before);
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
	make_directories(entry.path);
	entry.is_writable = lcp_is_own_place(entry.path);
	return 0;
}

static int start(struct launch *launch)
{
	struct background job = { .entry = entry.path, .target = &target, .env = launch->env };
	sighandler_t xfsz = signal(SIGXFSZ, SIG_IGN); /* as Python does */
	int result = prepare(launch);

	launch->xfsz_ignored = xfsz == SIG_IGN;
	if (result < 0)
		return LAUNCHER_FAILED;
	if (!result) {
		lcp_background_see(&job);
		try_snapshot(launch);
	}
	if (!result && entry.is_writable) {
		note_miss(problem.text);
		if (!is_refused() && !lcp_background_start(&job))
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

int lcp_automatic_shim(struct launch *launch, const char *shim, char **arguments)
{
	char *text = lcp_read_whole(AT_FDCWD, shim, LARGEST_FILE), *program = text ? strstr(text, SHIM) : NULL;
	char *words[2];

	if (!program) {
		lcp_say(shim, " is not a shim of libcriu-py; make it anew: libcriu-py shim NAME --into DIR", "");
		return SNAPSHOT_UNUSABLE;
	}
	program += strlen(SHIM);
	program[strcspn(program, "\n")] = '\0';
	words[0] = program;
	words[1] = NULL;
	lcp_target_find(&target, words, NULL);
	target.arguments = arguments;
	return start(launch);
}

int lcp_automatic_tell(const char *own, char **words)
{
	if (!*words || lcp_target_find(&target, words, own) || !target.kind || name_entry())
		return 1;
	printf("%s%c%s%c%s%c%s", entry.path, 0, target.kind, 0, target.value, 0, target.python);
	return fflush(stdout) ? 1 : 0;
}
