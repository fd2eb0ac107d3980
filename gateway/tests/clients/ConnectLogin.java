import java.io.FileInputStream;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.cert.Certificate;
import java.util.Base64;

/** Sends what Anaplan Connect 4 sends: a keystore's certificate, v1 with 150 random bytes. URL, keystore, alias, password. */
public final class ConnectLogin {
    private ConnectLogin() {}

    public static void main(String[] arguments) throws Exception {
        char[] password = arguments[3].toCharArray();
        KeyStore store = KeyStore.getInstance(arguments[1].endsWith(".jks") ? "JKS" : "PKCS12");
        try (InputStream file = new FileInputStream(arguments[1])) {
            store.load(file, password);
        }
        Certificate certificate = store.getCertificate(arguments[2]);
        PrivateKey key = (PrivateKey) store.getKey(arguments[2], password);
        byte[] message = new byte[150];
        new SecureRandom().nextBytes(message);
        Signature signer = Signature.getInstance("SHA512withRSA");
        signer.initSign(key);
        signer.update(message);
        Base64.Encoder base64 = Base64.getEncoder();
        String pem = "-----BEGIN CERTIFICATE-----\n"
                + Base64.getMimeEncoder(64, "\n".getBytes(StandardCharsets.US_ASCII)).encodeToString(certificate.getEncoded())
                + "\n-----END CERTIFICATE-----\n";
        String body = "{\n  \"encodedData\" : \"" + base64.encodeToString(message)
                + "\",\n  \"encodedSignedData\" : \"" + base64.encodeToString(signer.sign()) + "\"\n}";
        HttpURLConnection connection =
                (HttpURLConnection) URI.create(arguments[0] + "/token/authenticate").toURL().openConnection();
        connection.setRequestMethod("POST");
        connection.setDoOutput(true);
        connection.setRequestProperty(
                "AUTHORIZATION", "CACertificate " + base64.encodeToString(pem.getBytes(StandardCharsets.US_ASCII)));
        connection.setRequestProperty("Content-Type", "application/json");
        connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
        int status = connection.getResponseCode();
        InputStream answer = status < 400 ? connection.getInputStream() : connection.getErrorStream();
        System.out.println(status + " " + new String(answer.readAllBytes(), StandardCharsets.UTF_8));
    }
}
