/* The first process of a pod's sandbox (there it is called pause) and of a local stack.
 *
 * It adopts orphans and reaps them, and ends on SIGTERM or SIGINT. With any argument it
 * also ends when its standard input does: the pipe's other end is the stack's owner, so
 * the owner's death, however sudden, ends the pid namespace and all that runs in it.
 * One byte on the pipe means "detached": go on without an owner. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t ending;
static void on_end(int number) { (void)number; ending = 1; }
static void on_child(int number) { (void)number; }

int main(int argc, char **argv) {
    (void)argv;
    sigset_t held, open;
    sigemptyset(&open);
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGCHLD);
    /* Held except while ppoll waits, so that no signal falls between look and wait. */
    sigprocmask(SIG_BLOCK, &held, NULL);
    struct sigaction end = {.sa_handler = on_end}, child = {.sa_handler = on_child};
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGCHLD, &child, NULL);

    struct pollfd owner = {.fd = 0, .events = POLLIN};
    nfds_t watched = argc > 1 ? 1 : 0;
    while (!ending) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
        if (ppoll(&owner, watched, NULL, &open) > 0) {
            char byte;
            if (read(0, &byte, 1) != 1) return 0;
            watched = 0;
        }
    }
    return 0;
}
