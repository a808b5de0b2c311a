// Says a recording to the gateway until it is stored: java -jar target/client.jar URL FILE
//
// FILE is headerless PCM16, 16 kHz, mono. It prints the receipt, with the text if the URL ends with
// ?results=text. It ends with 0 only if all of the file is stored. On Android the same code runs in a
// coroutine or a thread of its own: org.json and OkHttp are there.

import java.io.File
import java.io.IOException
import java.security.MessageDigest
import java.util.UUID
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.random.Random
import kotlin.system.exitProcess
import okhttp3.HttpUrl.Companion.toHttpUrl
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.Response
import okhttp3.WebSocket
import okhttp3.WebSocketListener
import okio.ByteString.Companion.toByteString
import org.json.JSONObject

const val ATTEMPTS = 5
const val NORMAL = 1000

/** What cannot be mended by trying again. */
class Failure(message: String) : Exception(message)

/** The gateway refused the handshake, and says why in its body. */
class Refused(val status: Int, val retryAfter: Double, val body: String) : IOException("refused with $status: $body") {
    val forGood get() = status != 429 && status != 503
}

/** One utterance on one connection. `final` becomes the receipt with its text, or the error. */
class Utterance(private val pcm: ByteArray) : WebSocketListener() {
    val final = CompletableFuture<JSONObject>()
    private var receipt: JSONObject? = null

    override fun onMessage(webSocket: WebSocket, text: String) {
        val message = JSONObject(text)
        when (message.getString("status")) { // what is not known is passed over
            "connected" -> begin(webSocket, message.getJSONObject("limits"))
            "accepted" -> receipt = message
            "recognized" -> receipt?.put("text", message.getString("text"))
            "error" -> if (receipt == null) final.complete(message)
        }
    }

    private fun begin(socket: WebSocket, limits: JSONObject) {
        if (pcm.size > limits.getInt("max_audio_bytes")) {
            final.completeExceptionally(Failure("the recording is longer than the gateway takes"))
            socket.cancel()
        } else {
            thread(isDaemon = true) { send(socket, limits) }
        }
    }

    /** Says the audio within the limits, then done. `send` is false once the gateway has ended it. */
    private fun send(socket: WebSocket, limits: JSONObject) {
        val chunk = min(3200, limits.getInt("max_chunk_bytes")) // 100 ms
        val pause = (1000 / limits.getDouble("max_messages_per_second")).toLong()
        for (start in pcm.indices step chunk) {
            if (!socket.send(pcm.toByteString(start, min(chunk, pcm.size - start)))) return
            Thread.sleep(pause)
        }
        socket.send("""{"event": "done"}""")
    }

    /** OkHttp waits for our close: without it `onClosed` never comes. */
    override fun onClosing(webSocket: WebSocket, code: Int, reason: String) {
        webSocket.close(NORMAL, null)
        end(IOException("the connection ended without a final message ($code $reason)"))
    }

    override fun onFailure(webSocket: WebSocket, t: Throwable, response: Response?) {
        val refusal = response?.takeIf { it.code != 101 }?.let {
            Refused(it.code, it.header("Retry-After")?.toDoubleOrNull() ?: 0.0, it.body.string())
        }
        end(refusal ?: IOException("the connection broke: ${t.message}"))
    }

    private fun end(error: IOException) {
        receipt?.let { final.complete(it) } ?: final.completeExceptionally(error)
    }
}

val http = OkHttpClient.Builder().pingInterval(10, TimeUnit.SECONDS).readTimeout(0, TimeUnit.SECONDS).build()

fun speak(url: String, pcm: ByteArray): JSONObject {
    val request = Request.Builder().url(url).header("Sec-WebSocket-Protocol", "speech-ingress.v1")
    System.getenv("SPEECH_API_KEY")?.let { request.header("X-API-Key", it) } // what an edge asks for
    val utterance = Utterance(pcm)
    val socket = http.newWebSocket(request.build(), utterance)
    try {
        return utterance.final.get()
    } catch (error: ExecutionException) {
        throw error.cause!!
    } finally {
        socket.cancel()
    }
}

/** Returns what of the audio the receipt is not about: nothing, unless it was cut off. */
fun unstored(receipt: JSONObject, pcm: ByteArray): ByteArray {
    val size = receipt.getInt("audio_bytes")
    val stored = pcm.copyOf(min(size, pcm.size))
    val sha256 = MessageDigest.getInstance("SHA-256").digest(stored).joinToString("") { "%02x".format(it) }
    if (stored.size != size || sha256 != receipt.getString("sha256")) {
        throw Failure("the receipt is not about the audio that was sent")
    }
    return pcm.copyOfRange(size, pcm.size)
}

/**
 * Tries again where that helps, with pauses that grow and vary.
 *
 * Every attempt has the same name, and nothing is stored of one that breaks (1006 in a browser). So
 * whoever reads counts one utterance, however often it was said.
 */
fun speakUntilStored(address: String, pcm: ByteArray): JSONObject {
    val url = address.replaceFirst("ws", "http").toHttpUrl().newBuilder()
        .addQueryParameter("client_ref", UUID.randomUUID().toString())
        .addQueryParameter("on_disconnect", "discard").build().toString()
    for (attempt in 0 until ATTEMPTS) {
        var pause = 2.0.pow(attempt) * Random.nextDouble(0.5, 1.5)
        try {
            val final = speak(url, pcm)
            if (final.getString("status") == "accepted") return final
            if (!final.getBoolean("retryable")) throw Failure(final.toString())
        } catch (refused: Refused) {
            if (refused.forGood) throw Failure("refused for good: ${refused.body}")
            pause = max(pause, refused.retryAfter)
        } catch (error: IOException) {
            System.err.println("attempt ${attempt + 1}: ${error.message}")
        }
        Thread.sleep((1000 * pause).toLong())
    }
    throw Failure("gave up: the gateway did not take the utterance")
}

fun main(arguments: Array<String>) {
    if (arguments.size != 2) {
        System.err.println("usage: client URL FILE")
        exitProcess(2)
    }
    try {
        val pcm = File(arguments[1]).readBytes()
        val receipt = speakUntilStored(arguments[0], pcm)
        val rest = unstored(receipt, pcm)
        println(receipt)
        // Say the rest in a new connection: it becomes an utterance of its own.
        if (rest.isNotEmpty()) throw Failure("cut off by ${receipt.getString("ended_by")}: ${rest.size} bytes are not stored")
    } catch (failure: Exception) {
        System.err.println(failure.message)
        exitProcess(1)
    }
    exitProcess(0) // OkHttp's threads would stay for a minute
}
