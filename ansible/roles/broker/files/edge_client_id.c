/* A Mosquitto plugin: who a client is, is what its certificate says, and it may only take client ids of its own.
 *
 * The user name becomes the certificate's CN (what use_identity_as_username does), and the client id must be that CN, or
 * begin with it and a dot: kiosk-07, kiosk-07.doctor. The dot is in no device id, so kiosk-07 cannot pose as kiosk-07-b.
 * Mosquitto 2.0 cannot be told this: use_username_as_clientid looks at the user name that was sent, before the certificate's
 * takes its place, and turns away whoever sent none. Leave use_identity_as_username out: with it no plugin is asked.
 *
 *   gcc -shared -fPIC -O2 -Wall -Wextra -Werror -o edge_client_id.so edge_client_id.c
 *
 * The declarations are those of mosquitto_broker.h and mosquitto_plugin.h, interface 5 (Mosquitto 2.0), and of OpenSSL;
 * the broker itself holds the functions, so that building this takes a compiler and nothing else.
 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { EVENT_BASIC_AUTH = 3, SUCCESS = 0, ERROR_AUTH = 11, LOG_WARNING = 4, INTERFACE = 5, COMMON_NAME = 13, LONGEST = 64 };

struct mosquitto;
struct mosquitto_opt;
struct basic_auth {
	void *future;
	struct mosquitto *client;
	char *username;
	char *password;
	void *future2[4];
};
typedef int (*callback)(int event, void *data, void *user);
int mosquitto_callback_register(void *plugin, int event, callback, const void *event_data, void *user);
int mosquitto_set_username(struct mosquitto *, const char *);
const char *mosquitto_client_id(const struct mosquitto *);
const char *mosquitto_client_address(const struct mosquitto *);
void *mosquitto_client_certificate(const struct mosquitto *);
void mosquitto_log_printf(int level, const char *format, ...);

void *X509_get_subject_name(const void *certificate);
int X509_NAME_get_index_by_NID(const void *name, int nid, int after);
void *X509_NAME_get_entry(const void *name, int index);
void *X509_NAME_ENTRY_get_data(const void *entry);
const unsigned char *ASN1_STRING_get0_data(const void *);
int ASN1_STRING_length(const void *);
void X509_free(void *certificate);

/* The one CN of a certificate, a name of letters, digits and ".-_" that is no client id of another name. */
static bool common_name(const void *certificate, char name[LONGEST + 1])
{
	const void *subject = X509_get_subject_name(certificate);
	int index = X509_NAME_get_index_by_NID(subject, COMMON_NAME, -1);
	if (index < 0 || X509_NAME_get_index_by_NID(subject, COMMON_NAME, index) >= 0)
		return false;
	const void *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index));
	int length = ASN1_STRING_length(value);
	if (length < 1 || length > LONGEST)
		return false;
	memcpy(name, ASN1_STRING_get0_data(value), (size_t)length);
	name[length] = 0;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == (size_t)length;
}

static int on_login(int event, void *data, void *user)
{
	struct basic_auth *login = data;
	const char *id = mosquitto_client_id(login->client);
	char name[LONGEST + 1];
	(void)event;
	(void)user;

	void *certificate = mosquitto_client_certificate(login->client);
	if (certificate == NULL)
		return ERROR_AUTH;
	bool named = common_name(certificate, name);
	X509_free(certificate);
	if (!named || id == NULL) {
		mosquitto_log_printf(LOG_WARNING, "edge_client_id: %s refused: its certificate has no usable CN",
				     mosquitto_client_address(login->client));
		return ERROR_AUTH;
	}
	size_t length = strlen(name);
	if (strncmp(id, name, length) != 0 || (id[length] != 0 && id[length] != '.')) {
		mosquitto_log_printf(LOG_WARNING, "edge_client_id: %s refused: client id %s is not %s or %s.something",
				     mosquitto_client_address(login->client), id, name, name);
		return ERROR_AUTH;
	}
	return mosquitto_set_username(login->client, name) == SUCCESS ? SUCCESS : ERROR_AUTH;
}

int mosquitto_plugin_version(int count, const int *versions)
{
	for (int i = 0; i < count; i++)
		if (versions[i] == INTERFACE)
			return INTERFACE;
	return -1;
}

int mosquitto_plugin_init(void *plugin, void **user, struct mosquitto_opt *options, int count)
{
	(void)user;
	(void)options;
	(void)count;
	return mosquitto_callback_register(plugin, EVENT_BASIC_AUTH, on_login, NULL, NULL);
}

int mosquitto_plugin_cleanup(void *user, struct mosquitto_opt *options, int count)
{
	(void)user;
	(void)options;
	(void)count;
	return SUCCESS;
}
