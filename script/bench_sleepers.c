/* bench_sleepers COUNT [TOTAL [NODE EVERY]]: that many processes that do nothing, as cheap as a process gets.
 *
 * Together they hold TOTAL descriptors, of files, sockets and events as programs have them; every EVERY-th has NODE open
 * as one of its own. Prints their pids, one a line, then an empty line; ends with all of them when its standard input ends.
 * They die with it even when it is killed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void hold(long descriptors, const char *node)
{
    if (node && descriptors > 0) {
        descriptors--;
        if (open(node, O_RDONLY) < 0)
            _exit(1);
    }
    for (long i = 0; i < descriptors; i++) {
        int made = i % 3 == 0   ? open("/dev/null", O_RDONLY)
                   : i % 3 == 1 ? socket(AF_UNIX, SOCK_STREAM, 0)
                                : eventfd(0, 0);
        if (made < 0)
            _exit(1);
    }
}

static void sleep_with(pid_t parent, long descriptors, const char *node)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    close(0);
    close(1);
    close(2);
    hold(descriptors, node);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    int wanted = argc > 1 ? atoi(argv[1]) : 0, made = 0;
    long total = argc > 2 ? atol(argv[2]) : 0;
    int every = argc > 4 ? atoi(argv[4]) : 0;
    pid_t *pids = calloc((size_t)wanted + 1, sizeof *pids), self = getpid();
    for (; pids && made < wanted; made++) {
        pid_t pid = fork();
        if (pid == 0)
            sleep_with(self, total * (made + 1) / wanted - total * made / wanted,
                       every && made % every == 0 ? argv[3] : NULL);
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
