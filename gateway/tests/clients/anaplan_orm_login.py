"""anaplan-orm: certificate (v1, 100 bytes, the PEM body) and Basic. Only its URL is changed."""
import sys

from anaplan_orm.authenticator import Authenticator, BasicAuthenticator, CertificateAuthenticator

url, certificate_and_key, user, password = sys.argv[1:]
Authenticator.AUTH_URL = f"{url}/token/authenticate"
for authenticator in (CertificateAuthenticator(certificate_and_key), BasicAuthenticator(user, password)):
    print(authenticator.get_auth_headers()["Authorization"].removeprefix("AnaplanAuthToken "))
