#define _GNU_SOURCE
#include "launcher/interpreter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "launcher/background.h"
#include "launcher/conventional.h"
#include "launcher/messages.h"
#include "launcher/script.h"
#include "launcher/target.h"
#include "restore/launch.h"
#include "restore/problem.h"

#define SWITCH "LIBCRIU_PY_AUTO"
#define RENEWED_AFTER_MS 2000 /* a short program ends first, and has the processor */
#define REFUSED_FOR 600	      /* seconds (libcriu_py/copies/interpreter.py, renew) */

static int is_ours(const char *variable)
{
	return !strncmp(variable, NO_CHECKPOINT, strlen(NO_CHECKPOINT)) &&
	       atoi(variable + strlen(NO_CHECKPOINT)) == getpid();
}

int lcp_interpreter_is_off(const struct script *script)
{
	const char *wanted = getenv(SWITCH);

	if (strstr(script->path, "/../") || strstr(script->path, "/./") || strstr(script->path, "//"))
		return 1; /* not as Python would name itself */
	for (char *const *variable = environ; *variable; variable++)
		if (is_ours(*variable))
			return 1;
	return wanted && !strcmp(wanted, "0");
}

void lcp_interpreter_renew(const struct script *script, const struct launch *launch)
{
	static struct target target = { .kind = "interpreter" };
	static char place[PATH_MAX], refused[PATH_MAX + 16];
	const struct background job = { .entry = place, .target = &target, .env = launch->env,
					.wait_ms = RENEWED_AFTER_MS };
	struct stat status;
	char *slash;

	snprintf(target.value, sizeof(target.value), "%s", launch->directory);
	snprintf(target.python, sizeof(target.python), "%s", script->is_named ? script->path : script->command[0]);
	slash = strrchr(strcpy(place, target.value), '/');
	if (!slash || slash == place)
		return;
	*slash = '\0';
	snprintf(refused, sizeof(refused), "%s/refused", place);
	if (lcp_is_own_place(place) && (stat(refused, &status) || time(NULL) - status.st_mtime > REFUSED_FOR))
		lcp_background_start(&job);
}

int lcp_start_interpreter(const struct script *script, const struct launch *launch)
{
	char **argv = lcp_conventional_argv(script->command, launch->arguments), **to = launch->env;
	char *const path = argv ? argv[0] : NULL;

	if (!path) {
		lcp_say("", "no memory is left", "");
		return LAUNCHER_FAILED;
	}
	if (script->is_named)
		argv[0] = script->path; /* by which Python finds its environment */
	for (char *const *from = launch->env; *from; from++)
		if (!is_ours(*from))
			*to++ = *from;
	*to = NULL;
	for (int fd = 0; fd < 3; fd++)
		if (lcp_is_closed(fd))
			close(fd); /* the placeholder */
	execve(path, argv, launch->env);
	lcp_say(path, " cannot be started: ", strerror(errno));
	return LAUNCHER_FAILED;
}
