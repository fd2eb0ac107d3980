import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;

/**
 * Logs in with the key in a PKCS#11 token and prints the Anaplan token. Needs only Java 11 or newer:
 *
 * <pre>java AnaplanLogin.java [OPTIONS OF cba-agent sign]</pre>
 *
 * Exits with the code of cba-agent: never retry 4 (the PIN) unattended; 6 and 9 may be retried. The program is
 * cba-agent in PATH, or the path in the environment variable CBA_AGENT: cron sets a short PATH.
 *
 * <p>Options in JAVA_TOOL_OPTIONS that make Java print (-verbose, -Xlog) break the output. Then start it with
 * <code>env -u JAVA_TOOL_OPTIONS -u JDK_JAVA_OPTIONS</code>.
 */
public final class AnaplanLogin {
    private AnaplanLogin() {}

    public static void main(String[] options) throws IOException, InterruptedException {
        String[] request = sign(options).split("\n");
        String url = value(request, "CBA_URL"), authorization = value(request, "CBA_AUTHORIZATION"), body = value(request, "CBA_BODY");
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(20)).build();
        HttpRequest login = HttpRequest.newBuilder(URI.create(url))
                .timeout(Duration.ofSeconds(60))
                .header("Authorization", authorization)
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        var answer = client.send(login, BodyHandlers.ofString());
        if (answer.statusCode() / 100 != 2) {
            System.err.println("Anaplan refused the login (" + answer.statusCode() + "): " + answer.body());
            System.err.println(clock(answer.headers().firstValue("Date").orElse("")));
            System.exit(answer.statusCode() == 429 || answer.statusCode() >= 500 ? 9 : 5);
        }
        var token = Pattern.compile("\"tokenValue\"\\s*:\\s*\"([^\"]+)\"").matcher(answer.body());
        if (!token.find()) {
            throw new IOException("no token in the answer");
        }
        // As bytes: the encoding of System.out depends on the environment.
        System.out.write((token.group(1) + "\n").getBytes(StandardCharsets.US_ASCII));
        System.out.flush();
    }

    /** How this host's clock compares with the answer's: a v2 payload carries the time. */
    private static String clock(String date) {
        long seconds;
        try {
            Instant theirs = ZonedDateTime.parse(date, DateTimeFormatter.RFC_1123_DATE_TIME).toInstant();
            seconds = Duration.between(theirs, Instant.now()).getSeconds();
        } catch (DateTimeParseException noDate) {
            return "the answer has no time to compare this host's clock with";
        }
        if (Math.abs(seconds) < 30) {
            return "this host's clock agrees with the service's";
        }
        return "this host's clock is " + Math.abs(seconds) + " s " + (seconds > 0 ? "ahead of" : "behind")
                + " the service's, and a login carries the time: timedatectl set-ntp true (for a container, on its host)";
    }

    /** One request as assignments for a shell; what goes wrong is already on standard error. */
    private static String sign(String[] options) throws IOException, InterruptedException {
        String program = System.getenv("CBA_AGENT");
        if (program == null || program.isEmpty()) {
            program = "cba-agent";
        }
        List<String> command = new ArrayList<>(List.of(program, "sign", "--format", "env"));
        command.addAll(List.of(options));
        Process process;
        try {
            process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        } catch (IOException error) {
            System.err.println(error.getMessage() + ": set CBA_AGENT=/path/to/cba-agent; PATH is " + System.getenv("PATH"));
            System.exit(2);
            throw error;
        }
        process.getOutputStream().close();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        int code = process.waitFor();
        if (code != 0) {
            System.exit(code);
        }
        return said;
    }

    /** The value of NAME='...'; nothing that is signed holds a quote. */
    private static String value(String[] lines, String name) throws IOException {
        for (String line : lines) {
            if (line.startsWith(name + "='") && line.endsWith("'")) {
                return line.substring(name.length() + 2, line.length() - 1);
            }
        }
        throw new IOException("no " + name);
    }
}
