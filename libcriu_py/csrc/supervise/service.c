#define _GNU_SOURCE
#include "supervise/service.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/process.h"
#include "common/watch.h"

/* Become the criu of a connection. */
static void exec_criu(char *const *command, char *const *env, int sock)
{
	int null = open("/dev/null", O_RDWR), count = 0;
	char *argv[8], number[16];
	sigset_t none;

	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	while (command[count] && count < 6) {
		argv[count] = command[count];
		count++;
	}
	snprintf(number, sizeof(number), "%d", sock);
	argv[count++] = number;
	argv[count] = NULL;
	lcp_raise_limit(RLIMIT_NOFILE);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(argv[0], argv, env);
	_exit(127); /* the program sees the connection closed */
}

void lcp_serve_criu(int listener, char *const *command, char *const *env)
{
	int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct ucred program = { 0 };
	socklen_t size = sizeof(program);
	pid_t pid;

	if (sock < 0)
		return;
	if (lcp_same_user(sock) && !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &program, &size) && fork() == 0) {
		/* Our own stdio is closed: the connection may be one of 0 to 2. */
		sock = fcntl(sock, F_DUPFD, 10);
		lcp_prepare_watch();
		pid = fork();
		if (pid == 0)
			exec_criu(command, env, sock);
		if (pid > 0)
			lcp_watch(pid, lcp_dump_limit(program.pid));
		_exit(1);
	}
	close(sock);
}
