import asyncio
from lm_deluge import LLMClient, Conversation, Message

async def conversation_streaming():
    client = LLMClient(model="gpt-4o")

    # Create a conversation
    conversation = Conversation()
    conversation.add(
        Message.system("You are a helpful creative writing assistant.")
    )
    conversation.add(
        Message.user("Write a haiku about artificial intelligence.")
    )

    # Stream the response
    response = await client.stream(conversation)

    print(f"\n\nComplete response: {response.content.completion}")

asyncio.run(conversation_streaming())
