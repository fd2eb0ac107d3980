/* The yardstick: what anybody's program must do to sign in a PKCS#11 token, and nothing else. No check, no wall, no
 * sandbox, no fuse. It signs 100 random bytes with CKM_SHA512_RSA_PKCS.
 *
 *   bare sign MODULE LABEL                one signature, from nothing to the end, as a one-shot signer makes it
 *   bare rate MODULE LABEL THREADS MS     signatures in so many milliseconds, each thread with a session of its own
 *   bare latency MODULE LABEL COUNT       nanoseconds of each C_SignInit and C_Sign, one line each
 *
 * The PIN is read from standard input. Needs libp11-kit-dev for the standard's header.
 */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
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

int main(int count, char **argument) {
    if (count < 4 || read(0, pin, sizeof pin - 1) < 1) return 2;
    pin[strcspn(pin, "\n")] = 0;
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
    check(p11->C_Logout(session), "C_Logout");
    check(p11->C_CloseSession(session), "C_CloseSession");
    check(p11->C_Finalize(NULL), "C_Finalize");
    return 0;
}
