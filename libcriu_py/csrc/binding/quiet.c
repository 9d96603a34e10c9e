/*
 * What libcriu reports by perror() stays off the program's stderr: the caller gets the error as an exception. The
 * static libcriu calls this one; a shared one keeps libc's.
 */
void lcp_no_perror(const char *text) __asm__("perror");

void lcp_no_perror(const char *text)
{
	(void)text;
}
