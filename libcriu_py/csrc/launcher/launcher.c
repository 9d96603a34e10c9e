/*
 * libcriu-py-run: be the program of a snapshot, restored if possible, else started conventionally. Installed as
 * libcriu-py it does `run` itself and becomes the Python program for all else.
 *
 * No other program restores: the Python package starts this one too (order.h). It has one thread, and frees nothing
 * that it needs to its end: the process ends as the program does, or becomes the program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/binfmts.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/files.h"
#include "launcher/automatic.h"
#include "launcher/conventional.h"
#include "launcher/copy.h"
#include "launcher/interpreter.h"
#include "launcher/messages.h"
#include "launcher/script.h"
#include "launcher/target.h"
#include "restore/engine.h"
#include "restore/handover.h"
#include "restore/interpreter.h"
#include "restore/launch.h"
#include "restore/order.h"
#include "restore/privilege.h"
#include "restore/problem.h"
#include "restore/restore.h"
#include "restore/snapshot.h"
#include "supervise/proxy.h"

extern char **environ;

#define USAGE_ERROR 2
#define LAMBDA_SNAPSHOT "lambda.snap" /* in the working directory: integrations/functions.py */

static const char usage[] =
	"usage: libcriu-py-run [--no-fallback] [-q] [--engine ENGINE] [--mode MODE] DIR [--] [ARGUMENTS ...]\n"
	"       libcriu-py-run --script FILE [ARGUMENTS ...]\n"
	"       libcriu-py-run --auto FILE [ARGUMENTS ...]\n";

static const char help[] =
	"\n"
	"Restore a copy of the program in the snapshot DIR and be that program: with these arguments, this\n"
	"environment, working directory, standard streams, other inherited descriptors and terminal, and its\n"
	"exit status. If it cannot be restored it is started conventionally, with one line on stderr that says why.\n"
	"\n"
	"  --no-fallback    fail where a conventional start would be tried\n"
	"  -q, --quiet      do not say why there was a conventional start\n"
	"  --engine ENGINE  restore only a snapshot of this engine: native, criu; auto takes either\n"
	"  --mode MODE      how criu is to be allowed to: auto, root, capability, rootless\n"
	"  --script FILE    take DIR, MODE and the conventional command from a launch script, whose interpreter\n"
	"                   line names this program\n"
	"\n"
	"exit status: the program's own; 2 wrong command line; 125 the restore failed, and with it the conventional\n"
	"start or --no-fallback was given; 126 the snapshot cannot be used, and there was no conventional start.\n";

/* The disposition of SIGXFSZ at the start of this process. */
static sighandler_t xfsz = SIG_DFL;

/* ---- standard streams ------------------------------------------------- */

/*
 * Mark closed descriptors 0 to 2 as taken, or files opened from here on would
 * get these numbers. O_PATH tells what they are.
 */
static void open_missing_stdio(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/", O_PATH | O_CLOEXEC) < 0)
			return;
}

static uint64_t blocked_signals(void)
{
	uint64_t found = 0;
	sigset_t mask;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int sig = 1; sig <= 64; sig++)
		if (sig != 32 && sig != 33 && sigismember(&mask, sig) == 1) /* glibc keeps these for its threads */
			found |= (uint64_t)1 << (sig - 1);
	return found;
}

/* ---- the command line ------------------------------------------------- */

/* Become the command in Python, which is installed beside this one. */
static int become_command(char **argv)
{
	char path[PATH_MAX], interpreter[BINPRM_BUF_SIZE], why[sizeof(interpreter) + 128];
	int error;

	lcp_command_path(path);
	for (int fd = 0; fd < 3; fd++)
		if (lcp_is_closed(fd))
			close(fd); /* the placeholder */
	execv(path, argv);
	error = errno;
	lcp_find_interpreter(path, interpreter, sizeof(interpreter));
	/* the kernel has one errno for both files */
	if (*interpreter && !access(path, X_OK) && access(interpreter, X_OK)) {
		error = errno;
		snprintf(why, sizeof(why), " cannot be started: its interpreter %s: %s", interpreter, strerror(error));
	} else {
		snprintf(why, sizeof(why), " cannot be started: %s", strerror(error));
	}
	lcp_say(path, why, error == ENOENT ? "; install libcriu-py again" : "");
	return LAUNCHER_FAILED;
}

/* Whether this is `libcriu-py`, and not `libcriu-py-run`. */
static int is_command(const char *name)
{
	const char *slash = strrchr(name, '/');

	return !strcmp(slash ? slash + 1 : name, "libcriu-py");
}

static int wrong_usage(const struct launch *launch, const char *message, const char *word)
{
	if (launch->command)
		return become_command(launch->command); /* which says so too */
	fprintf(stderr, "%slibcriu-py-run: error: %s%s\n", usage, message, word);
	return USAGE_ERROR;
}

/* Read the options; -1 to go on, else the exit status. */
static int read_options(struct launch *launch, char **argv)
{
	for (argv++; *argv && **argv == '-' && strcmp(*argv, "--"); argv++) {
		if (!strcmp(*argv, "--no-fallback")) {
			launch->no_fallback = 1;
		} else if (!strcmp(*argv, "-q") || !strcmp(*argv, "--quiet")) {
			launch->quiet = 1;
		} else if (!strcmp(*argv, "--print-request")) {
			launch->print_request = 1;
		} else if (!strcmp(*argv, "--list-mismatches")) {
			launch->list_mismatches = launch->no_fallback = 1;
		} else if (!strcmp(*argv, "--stop")) {
			launch->stop = 1;
		} else if (!strcmp(*argv, "--engine")) {
			launch->engine = *++argv;
			if (!launch->engine)
				return wrong_usage(launch, "argument --engine: expected one argument", "");
			if (lcp_engine_of(launch->engine) < 0)
				return wrong_usage(launch, "argument --engine: invalid choice: ", launch->engine);
		} else if (!strcmp(*argv, "--mode")) {
			launch->mode = *++argv;
			if (!launch->mode)
				return wrong_usage(launch, "argument --mode: expected one argument", "");
			if (lcp_mode_of(launch->mode) < 0)
				return wrong_usage(launch, "argument --mode: invalid choice: ", launch->mode);
		} else if (!strcmp(*argv, "--script")) {
			launch->script = *++argv;
			if (!launch->script)
				return wrong_usage(launch, "argument --script: expected one argument", "");
			launch->arguments = argv + 1; /* all of them, as for any script */
			return -1;
		} else if (!strcmp(*argv, "-h") || !strcmp(*argv, "--help")) {
			if (launch->command)
				return become_command(launch->command);
			printf("%s%s", usage, help);
			return fflush(stdout) ? 1 : 0;
		} else {
			return wrong_usage(launch, "unrecognized arguments: ", *argv);
		}
	}
	if (*argv && !strcmp(*argv, "--"))
		argv++; /* DIR may start with a dash */
	if (!*argv)
		return wrong_usage(launch, "the following arguments are required: DIR", "");
	launch->directory = *argv++;
	if (*argv && !strcmp(*argv, "--"))
		argv++;
	launch->arguments = argv;
	return -1;
}

/* ---- running -------------------------------------------------------- */

/* Know how to start the program conventionally, if that is wanted and possible. */
static void prepare_conventional(struct launch *launch, const struct script *script, const struct snapshot *snapshot)
{
	char *const *command = script->command ? script->command : lcp_snapshot_command(snapshot);
	char *const itself[] = { script->path, NULL };
	int is_of_main = lcp_snapshot_is_of_main(snapshot);

	if (!command || launch->no_fallback)
		return;
	if (script->is_interpreter) { /* a copy that fails comes back here, and is told by its pid */
		command = itself;
		is_of_main = 0;
	}
	launch->conventional = lcp_conventional_argv(command, launch->arguments);
	launch->conventional_env = lcp_conventional_env(launch->env, is_of_main);
}

/* Whether a copy can be the interpreter that these arguments ask for; where not, a new one starts without a word. */
static int can_be_copy(struct launch *launch, const struct snapshot *snapshot)
{
	if (launch->no_fallback || !lcp_is_interpreter(snapshot) ||
	    !lcp_interpreter_is_to_start(snapshot, launch->arguments))
		return 1;
	launch->quiet = 1;
	return 0;
}

static int run(struct launch *launch)
{
	struct problem problem = { 0 };
	struct script script = { 0 };
	struct snapshot snapshot;
	int result;

	/* As Python does: a write beyond the file size limit is an error, and does not end this process. */
	xfsz = signal(SIGXFSZ, SIG_IGN);
	launch->xfsz_ignored = xfsz == SIG_IGN;
	if (launch->script && lcp_script_read(&script, launch, &problem)) {
		lcp_say("", problem.text, "");
		return SNAPSHOT_UNUSABLE;
	}
	if (script.is_interpreter && lcp_interpreter_is_off(&script)) {
		signal(SIGXFSZ, xfsz);
		return lcp_start_interpreter(&script, launch);
	}
	result = lcp_snapshot_open(&snapshot, launch->directory, &problem);
	if (!result && launch->print_request)
		return lcp_print_request(launch, &snapshot);
	if (!result && launch->list_mismatches)
		return lcp_snapshot_list_mismatches(&snapshot);
	prepare_conventional(launch, &script, &snapshot);
	if (!result && can_be_copy(launch, &snapshot))
		lcp_be_copy(launch, &snapshot, &problem);
	signal(SIGXFSZ, xfsz);
	if (script.is_interpreter && problem.is_stale)
		lcp_interpreter_renew(&script, launch);
	if (script.is_interpreter)
		return lcp_start_interpreter(&script, launch);
	if (!launch->conventional || !launch->conventional_env) {
		lcp_say("", problem.text, "");
		return problem.code;
	}
	if (!launch->quiet)
		lcp_say("starting conventionally: ", problem.text, "");
	lcp_start_conventionally(launch->conventional, launch->conventional_env);
	return LAUNCHER_FAILED;
}

/* Restore for a caller, which gets events of the copy. There is no conventional start. */
static int run_order(const char *number)
{
	struct problem problem = { 0 };
	struct launch launch = { 0 };
	struct restored restored;
	struct snapshot snapshot;
	struct order order;

	signal(SIGXFSZ, SIG_IGN);
	if (lcp_order_read(&order, atoi(number))) {
		lcp_say("the order is of another version of libcriu_py, or damaged; install libcriu-py again", "", "");
		return LAUNCHER_FAILED;
	}
	launch.order = &order;
	launch.directory = order.directory;
	launch.mode = lcp_mode_name(order.mode);
	if (!lcp_snapshot_open(&snapshot, launch.directory, &problem) &&
	    !lcp_restore(&restored, &launch, &snapshot, &problem))
		return lcp_order_serve(&order, &restored, lcp_snapshot_command(&snapshot));
	lcp_order_failed(&order, &problem);
	return problem.code;
}

/* Have the words `lambda-bootstrap HANDLER` mean `run` of the snapshot of an image, if it has one; their number. */
static int take_function(int argc, char **argv, char *words[5])
{
	char *const made[] = { argv[0], "run", LAMBDA_SNAPSHOT, argv[2], NULL };

	if (argc != 3 || strcmp(argv[1], "lambda-bootstrap") || *argv[2] == '-' || access(LAMBDA_SNAPSHOT, F_OK))
		return argc;
	memcpy(words, made, sizeof(made));
	return 4;
}

/* Whether what follows `auto` names a program, and is no option of it. */
static int is_program(char **words)
{
	if (!strcmp(*words, "--"))
		return !!words[1];
	return **words != '-' || (!strncmp(*words, "-m", 2) && ((*words)[2] || words[1]));
}

int main(int argc, char **argv)
{
	struct launch launch = { 0 };
	char *function[5] = { NULL };
	int result;

	if (argc < 1)
		return USAGE_ERROR;
	open_missing_stdio();
	launch.blocked = blocked_signals();
	launch.env = environ;
	if (argc == 3 && !strcmp(argv[1], "--order"))
		return run_order(argv[2]);
	if (argc > 2 && !strcmp(argv[1], "--auto"))
		return lcp_automatic_shim(&launch, argv + 2);
	if (argc > 3 && !strcmp(argv[1], "--auto-start"))
		return lcp_automatic(&launch, argv[2], argv + 3);
	if (argc > 3 && !strcmp(argv[1], "--auto-python"))
		return lcp_automatic_interpreter(&launch, argv[2], argv + 3);
	if (argc > 3 && !strcmp(argv[1], "--auto-learn"))
		return lcp_automatic_learn(&launch, argv[2], argv + 3);
	if (argc > 3 && !strcmp(argv[1], "--auto-tell"))
		return lcp_automatic_tell(argv[2], argv + 3);
	if (is_command(argv[0])) {
		if (argc > 2 && !strcmp(argv[1], "auto") && is_program(argv + 2))
			return lcp_automatic(&launch, NULL, argv + 2 + !strcmp(argv[2], "--"));
		argc = take_function(argc, argv, function);
		argv = *function ? function : argv;
		if (argc < 2 || strcmp(argv[1], "run"))
			return become_command(argv);
		launch.command = argv++;
	}
	result = read_options(&launch, argv);
	return result < 0 ? run(&launch) : result;
}
