/*
 * A criu for a program that dumps itself.
 */
#ifndef LCP_SERVICE_H
#define LCP_SERVICE_H

/*
 * A program that asks for it is served a criu of its own: the program has no capability, neither when it runs nor in the
 * image, and this process has the one that criu needs. criu takes the pid to dump from the socket's credentials. `command`
 * is that of criu but for its last word, the descriptor.
 */
void lcp_serve_criu(int listener, char *const *command, char *const *env);

#endif
