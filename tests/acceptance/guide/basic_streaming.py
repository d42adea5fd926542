import asyncio
from lm_deluge import LLMClient

async def basic_streaming():
    client = LLMClient(model="gpt-4o")

    # Simple string prompt
    response = await client.stream("Write a short story about a robot learning to paint.")

    # The stream method prints tokens as they arrive and returns final response
    print(f"\n\nFinal response: {response.content.completion}")

# Run the async function
asyncio.run(basic_streaming())
