import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.yaml.YAMLFactory;
import io.strimzi.api.kafka.model.common.UnknownPropertyPreserving;
import io.strimzi.api.kafka.model.kafka.Kafka;
import io.strimzi.api.kafka.model.nodepool.KafkaNodePool;
import io.strimzi.api.kafka.model.topic.KafkaTopic;
import io.strimzi.api.kafka.model.user.KafkaUser;
import java.beans.Introspector;
import java.beans.PropertyDescriptor;
import java.nio.file.Path;
import java.util.Collection;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Reads Strimzi's resources with Strimzi's own model: java -cp … Model.java FILE…
 *
 * The model keeps what it does not know, so that newer resources survive it. Here that is a fault.
 * Prints a line for each property that is not known, and ends with 1 where there is one.
 */
public class Model {
    private static final Map<String, Class<?>> KINDS = Map.of(
            "Kafka", Kafka.class,
            "KafkaNodePool", KafkaNodePool.class,
            "KafkaTopic", KafkaTopic.class,
            "KafkaUser", KafkaUser.class);
    private static final Set<Object> SEEN = Collections.newSetFromMap(new IdentityHashMap<>());
    private static int read = 0;
    private static int unknown = 0;

    public static void main(String[] files) throws Exception {
        var yaml = new YAMLFactory();
        var mapper = new ObjectMapper(yaml);
        for (String file : files) {
            try (var documents = mapper.readerFor(JsonNode.class).readValues(yaml.createParser(Path.of(file).toFile()))) {
                while (documents.hasNext()) {
                    var resource = (JsonNode) documents.next();
                    var kind = resource.get("kind").asText();
                    if (!KINDS.containsKey(kind)) {
                        throw new IllegalArgumentException(file + ": no model of " + kind);
                    }
                    var name = kind + " " + resource.at("/metadata/name").asText();
                    look(name, mapper.treeToValue(resource, KINDS.get(kind)));
                    read++;
                }
            }
        }
        System.out.println(read + " read");
        System.exit(unknown == 0 ? 0 : 1);
    }

    private static void look(String path, Object value) throws Exception {
        if (value instanceof Collection<?> all) {
            for (Object each : all) {
                look(path, each);
            }
        } else if (value != null && value.getClass().getName().startsWith("io.strimzi.") && SEEN.add(value)) {
            if (value instanceof UnknownPropertyPreserving model) {
                var more = model.getAdditionalProperties();
                for (String name : more == null ? List.<String>of() : List.copyOf(more.keySet())) {
                    System.out.println(path + ": " + name + " is not known");
                    unknown++;
                }
            }
            for (PropertyDescriptor each : Introspector.getBeanInfo(value.getClass()).getPropertyDescriptors()) {
                var getter = each.getReadMethod();
                if (getter != null && getter.getParameterCount() == 0) {
                    look(path + "." + each.getName(), getter.invoke(value));
                }
            }
        }
    }
}
