"""anaplanConnector: certificate (v1, 150 bytes, base64 of the PEM text) and Basic. Only its URL is changed."""
import sys

from anaplanConnector.connector import Connection

url, certificate, key, user, password = sys.argv[1:]
for connection in (
    Connection("certificate", privateCertPath=key, publicCertPath=certificate, workspaceId="w", modelId="m"),
    Connection("basic", email=user, password=password, workspaceId="w", modelId="m"),
):
    connection.endpoints.token = f"{url}/token/authenticate"
    connection.getToken()
    print(connection.token)
