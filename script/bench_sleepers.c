/* bench_sleepers COUNT: that many processes that do nothing, as cheap as a process gets.
 *
 * Prints their pids, one a line, then an empty line; ends with all of them when its standard input ends. They die with
 * it even when it is killed. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void sleep_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    close(0);
    close(1);
    close(2);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 0, made = 0;
    pid_t *pids = calloc((size_t)wanted + 1, sizeof *pids), self = getpid();
    for (; pids && made < wanted; made++) {
        pid_t pid = fork();
        if (pid == 0)
            sleep_with(self);
        if (pid < 0)
            break; /* the machine allows no more; the caller counts them */
        pids[made] = pid;
    }
    for (int i = 0; i < made; i++)
        printf("%d\n", pids[i]);
    printf("\n");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    for (int i = 0; i < made; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
