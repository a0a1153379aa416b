import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/** Runs a SQL script in a Flink mini cluster: {@code FlinkJob.java SCRIPT KEY=VALUE...}. */
public class FlinkJob {
  public static void main(String[] arguments) throws Exception {
    Configuration configuration = new Configuration();
    for (int i = 1; i < arguments.length; i++) {
      String[] setting = arguments[i].split("=", 2);
      configuration.setString(setting[0], setting[1]);
    }
    TableEnvironment tables =
        TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
    TableResult last = null;
    for (String statement : Files.readString(Path.of(arguments[0])).split(";\\s*\\n")) {
      if (!statement.isBlank()) {
        last = tables.executeSql(statement.strip());
      }
    }
    last.await();
  }
}
