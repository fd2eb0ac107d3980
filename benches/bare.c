/* The reference program: what every program must do to sign in a PKCS#11 token, and nothing else. No check of the result, no second
 * process, no sandbox, no wrong-PIN fuse. It signs 100 random bytes with CKM_SHA512_RSA_PKCS.
 *
 *   bare sign MODULE LABEL                one signature, from the start of the program to its end
 *   bare rate MODULE LABEL THREADS MS     signatures in MS milliseconds, each thread with a separate session
 *   bare latency MODULE LABEL COUNT       nanoseconds of each C_SignInit and C_Sign, one line each
 *
 * And what two processes and their messages cost, when neither does anything else:
 *
 *   bare two-processes MODULE LABEL [FILE]
 *                                         one signature by a second process, which this one starts, asks and waits for. With FILE, one
 *                                         byte is written there and synced to disk before the login
 *   bare relay MODULE LABEL WORKERS SOCKET
 *                                         answers clients as an agent does, from processes that sign: by messages of the same number,
 *                                         with a fixed text of a payload's length, and without a look at the request
 *
 * The PIN is read from standard input. Needs libp11-kit-dev for the standard's header.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static CK_FUNCTION_LIST *p11;
static CK_SLOT_ID slot;
static CK_OBJECT_HANDLE key;
static char pin[256];
static atomic_int over;

static void check(CK_RV value, const char *what) {
    if (value != CKR_OK) {
        fprintf(stderr, "bare: %s: 0x%lx\n", what, value);
        exit(1);
    }
}

static CK_ULONG find(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *found, CK_ULONG most) {
    CK_ATTRIBUTE wanted = {CKA_CLASS, &class, sizeof class};
    CK_ULONG count = 0;
    check(p11->C_FindObjectsInit(session, &wanted, 1), "C_FindObjectsInit");
    check(p11->C_FindObjects(session, found, most, &count), "C_FindObjects");
    check(p11->C_FindObjectsFinal(session), "C_FindObjectsFinal");
    return count;
}

static void sign(CK_SESSION_HANDLE session) {
    CK_MECHANISM mechanism = {CKM_SHA512_RSA_PKCS, NULL, 0};
    unsigned char message[100], signature[1024];
    CK_ULONG length = sizeof signature;
    if (getrandom(message, sizeof message, 0) != sizeof message) exit(1);
    check(p11->C_SignInit(session, &mechanism, key), "C_SignInit");
    check(p11->C_Sign(session, message, sizeof message, signature, &length), "C_Sign");
}

static CK_SESSION_HANDLE open_session(void) {
    CK_SESSION_HANDLE session;
    check(p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session), "C_OpenSession");
    return session;
}

/* From the module's file to a logged-in session, the key, and the certificate for the header. */
static CK_SESSION_HANDLE begin(const char *module, const char *label) {
    void *library = dlopen(module, RTLD_NOW);
    CK_C_GetFunctionList list = library ? (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList") : NULL;
    if (!list) {
        fprintf(stderr, "bare: %s\n", dlerror());
        exit(1);
    }
    check(list(&p11), "C_GetFunctionList");
    CK_C_INITIALIZE_ARGS arguments = {.flags = CKF_OS_LOCKING_OK};
    check(p11->C_Initialize(&arguments), "C_Initialize");
    CK_SLOT_ID slots[64];
    CK_ULONG count = 64, at;
    check(p11->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList");
    for (at = 0; at < count; at++) {
        CK_TOKEN_INFO info;
        check(p11->C_GetTokenInfo(slots[at], &info), "C_GetTokenInfo");
        if (!strncmp((char *)info.label, label, strlen(label))) break;
    }
    if (at == count) exit(1);
    slot = slots[at];
    CK_SESSION_HANDLE session = open_session();
    check(p11->C_Login(session, CKU_USER, (unsigned char *)pin, strlen(pin)), "C_Login");
    CK_OBJECT_HANDLE certificate;
    unsigned char der[8192];
    CK_ATTRIBUTE value = {CKA_VALUE, der, sizeof der};
    if (find(session, CKO_PRIVATE_KEY, &key, 1) != 1 || find(session, CKO_CERTIFICATE, &certificate, 1) != 1) exit(1);
    check(p11->C_GetAttributeValue(session, certificate, &value, 1), "C_GetAttributeValue");
    return session;
}

static void *rate(void *counter) {
    CK_SESSION_HANDLE session = open_session();
    for (; !over; ++*(long *)counter) sign(session);
    return NULL;
}

static long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void end(CK_SESSION_HANDLE session) {
    check(p11->C_Logout(session), "C_Logout");
    check(p11->C_CloseSession(session), "C_CloseSession");
    check(p11->C_Finalize(NULL), "C_Finalize");
}

/* A message between two processes: eight bytes. */
static void send_message(int socket) {
    long message = 1;
    if (write(socket, &message, sizeof message) != sizeof message) exit(1);
}

static int receive_message(int socket) {
    long message;
    return read(socket, &message, sizeof message) == sizeof message;
}

/* Load the module, open a session, read the flags, log in, read the objects, sign, end. */
enum { REQUESTS_OF_ONE = 7 };

extern char **environ;

static int two_processes(int count, char **argument) {
    int pair[2], status;
    pid_t worker;
    posix_spawn_file_actions_t actions;
    char *second[] = {argument[0], "second-process", argument[2], argument[3], NULL};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return 1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
    if (posix_spawn(&worker, "/proc/self/exe", &actions, NULL, second, environ)) return 1;
    if (count == 5) {
        int file = open(argument[4], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file < 0 || pwrite(file, "1", 1, 0) != 1 || fdatasync(file)) return 1;
    }
    if (write(pair[0], pin, sizeof pin) != sizeof pin) return 1;
    for (int request = 0; request < REQUESTS_OF_ONE; request++) {
        send_message(pair[0]);
        if (!receive_message(pair[0])) return 1;
    }
    return waitpid(worker, &status, 0) == worker ? status : 1;
}

static int second_process(char **argument) {
    if (recv(0, pin, sizeof pin, MSG_WAITALL) != sizeof pin) return 1;
    CK_SESSION_HANDLE session = begin(argument[2], argument[3]);
    for (int request = 0; request < REQUESTS_OF_ONE; request++) {
        if (!receive_message(0)) return 1;
        if (request == REQUESTS_OF_ONE - 2) sign(session);
        if (request == REQUESTS_OF_ONE - 1) end(session);
        send_message(0);
    }
    _exit(0);
}

enum { WORKERS = 16, DESCRIPTORS = 1024, REQUESTS = 4096 };

/* A queue of descriptors. */
struct ring { int all[REQUESTS], first, past; };

static int length(const struct ring *ring) { return ring->past - ring->first; }
static void put(struct ring *ring, int one) { ring->all[ring->past++ % REQUESTS] = one; }
static int take(struct ring *ring) { return ring->all[ring->first++ % REQUESTS]; }

static int watched(int epoll, int descriptor) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}

static int relay(char **argument) {
    enum { BODY = 1939 };
    static int worker[WORKERS], worker_of[DESCRIPTORS];
    static struct ring waiting, asked[WORKERS];
    static char answer[BODY + 100], request[4096];
    int workers = atoi(argument[4]), epoll = epoll_create1(0);
    size_t head = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", BODY);
    memset(answer + head, 'x', BODY);
    memset(worker_of, -1, sizeof worker_of);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < workers && i < WORKERS; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 1;
        if (!fork()) {
            for (int other = 0; other < i; other++) close(worker[other]);
            close(pair[0]);
            CK_SESSION_HANDLE session = begin(argument[2], argument[3]);
            for (send_message(pair[1]); receive_message(pair[1]); send_message(pair[1])) sign(session);
            _exit(0);
        }
        close(pair[1]);
        worker[i] = pair[0], worker_of[pair[0]] = i;
        if (!receive_message(pair[0]) || watched(epoll, pair[0])) return 1;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argument[5], sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 512) || watched(epoll, listener)) return 1;
    puts("ready"), fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            int descriptor = events[i].data.fd;
            if (descriptor == listener) {
                if (watched(epoll, accept(listener, NULL, NULL))) return 1;
            } else if (worker_of[descriptor] >= 0) {
                if (!receive_message(descriptor)) return 1;
                /* A client that has left needs no answer. */
                if (write(take(&asked[worker_of[descriptor]]), answer, head + BODY) < 0) continue;
            } else if (read(descriptor, request, sizeof request) > 0) {
                put(&waiting, descriptor);
            } else {
                close(descriptor);
            }
        }
        /* Idle workers first. Then each gets its next request early, so that none waits for this process. */
        for (int ahead = 0; ahead < 2; ahead++) {
            for (int i = 0; i < workers && length(&waiting); i++) {
                if (length(&asked[i]) != ahead) continue;
                put(&asked[i], take(&waiting));
                send_message(worker[i]);
            }
        }
    }
}

int main(int count, char **argument) {
    if (count == 4 && !strcmp(argument[1], "second-process")) return second_process(argument);
    if (count < 4 || read(0, pin, sizeof pin - 1) < 1) return 2;
    pin[strcspn(pin, "\n")] = 0;
    if (!strcmp(argument[1], "two-processes")) return two_processes(count, argument);
    if (!strcmp(argument[1], "relay") && count == 6) return relay(argument);
    CK_SESSION_HANDLE session = begin(argument[2], argument[3]);
    sign(session);
    if (!strcmp(argument[1], "rate") && count == 6) {
        enum { MOST = 64 };
        int threads = atoi(argument[4]);
        pthread_t thread[MOST];
        static struct { _Alignas(64) long of; } counter[MOST];
        struct timespec time = {atoi(argument[5]) / 1000, atoi(argument[5]) % 1000 * 1000000L};
        long sum = 0, start = nanoseconds();
        for (int i = 0; i < threads && i < MOST; i++) pthread_create(&thread[i], NULL, rate, &counter[i].of);
        nanosleep(&time, NULL);
        over = 1;
        for (int i = 0; i < threads && i < MOST; i++) {
            pthread_join(thread[i], NULL);
            sum += counter[i].of;
        }
        printf("%.1f\n", sum * 1e9 / (nanoseconds() - start));
    } else if (!strcmp(argument[1], "latency") && count == 5) {
        for (int i = atoi(argument[4]); i > 0; i--) {
            long start = nanoseconds();
            sign(session);
            printf("%ld\n", nanoseconds() - start);
        }
    } else if (strcmp(argument[1], "sign")) {
        return 2;
    }
    end(session);
    return 0;
}
