"""What an app does with the official Python SDK, changed in two settings only.

Takes the base URL and the access token; here they are the proxy's address and a client key. Pages
through all contacts, writes one, uploads a CSV and prints what came of it as one JSON object.
"""

import json
import sys
import tempfile

from constant_contact_api_client import (
    ApiClient,
    BulkActivitiesApi,
    Configuration,
    ContactListsApi,
    ContactsApi,
    CreateOrUpdateContactRequest,
)


def all_contacts(client: ApiClient) -> list[str]:
    page = ContactsApi(client).get_all_contacts(limit=50)
    ids = [contact.contact_id for contact in page.contacts]
    while page.links and page.links.next and page.links.next.href:
        # the link of the next page is given from the root, the SDK's base URL ends in /v3
        path = page.links.next.href.removeprefix("/v3")
        method, url, headers, _, _ = client.param_serialize(
            "GET",
            path,
            header_params={"Accept": "application/json"},
            auth_settings=["oauth2_access_code"],
        )
        response = client.call_api(method, url, headers)
        response.read()
        page = client.response_deserialize(response, {"200": "GetAllContacts200Response"}).data
        ids.extend(contact.contact_id for contact in page.contacts)
    return ids


def main() -> None:
    host, access_token = sys.argv[1:3]
    client = ApiClient(Configuration(host=host, access_token=access_token))
    before = all_contacts(client)
    first_list = ContactListsApi(client).get_all_lists().lists[0].list_id
    wanted = {"email_address": "sdk@example.com", "list_memberships": [first_list]}
    request = CreateOrUpdateContactRequest.from_dict(wanted)
    created = ContactsApi(client).create_or_update_contact(request)
    updated = ContactsApi(client).create_or_update_contact(request)
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("email,first_name\n")
        file.writelines(f"import{number}@example.com,Ann\n" for number in range(25))
        file.flush()
        activity = BulkActivitiesApi(client).create_csv_import_activity(file.name, first_list)
    print(
        json.dumps(
            {
                "contacts": len(before),
                "different": len(set(before)),
                "created": created.action,
                "updated": updated.action,
                "same": created.contact_id == updated.contact_id,
                "activity": activity.activity_id,
                "after": len(all_contacts(client)),
            }
        )
    )


main()
