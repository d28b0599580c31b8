//! The lock of the fleet's leader, as the lock client for Java reads and writes it.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;

use super::DynamoDbLeaseStore;
use crate::lease::error::{LeaseStoreError, classify};
use crate::lease::item::{self, attribute as name, text};
use crate::lease::store::LeaderLock;
use crate::lease::table::Layout;

impl DynamoDbLeaseStore {
    pub(super) async fn get_leader(&self) -> Result<Option<LeaderLock>, LeaseStoreError> {
        let output = self
            .client
            .get_item()
            .table_name(self.layout.state(&self.table))
            .key(self.layout.state_key(), text(item::LEADER))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| classify("GetItem (leader)", &error))?;
        Ok(output.item.and_then(|item| item::leader_lock(&item)))
    }

    pub(super) async fn swap_leader(
        &self,
        known: Option<&LeaderLock>,
        next: Option<&LeaderLock>,
    ) -> Result<bool, LeaseStoreError> {
        let table = self.layout.state(&self.table);
        let key = self.layout.state_key();
        let (condition, names, values) = match known {
            Some(lock) => (
                "#version = :known",
                HashMap::from([("#version".to_owned(), name::LOCK_VERSION.to_owned())]),
                Some(HashMap::from([(":known".to_owned(), text(&lock.version))])),
            ),
            // The lock client for Java may keep a lock that it released.
            None => (
                "attribute_not_exists(#key) OR attribute_exists(#released)",
                HashMap::from([
                    ("#key".to_owned(), key.to_owned()),
                    ("#released".to_owned(), name::LOCK_RELEASED.to_owned()),
                ]),
                None,
            ),
        };
        let failure = match next {
            Some(lock) => {
                let has_entity_type = matches!(self.layout, Layout::OneTable);
                let put = self.client.put_item().table_name(table);
                let answer = put
                    .set_item(Some(item::encode_leader_lock(lock, key, has_entity_type)))
                    .condition_expression(condition)
                    .set_expression_attribute_names(Some(names))
                    .set_expression_attribute_values(values)
                    .send()
                    .await;
                let Err(error) = answer else { return Ok(true) };
                if let Some(PutItemError::ConditionalCheckFailedException(_)) =
                    error.as_service_error()
                {
                    // An earlier attempt of this call may have been done, and its answer lost.
                    let now = self.get_leader().await?;
                    return Ok(now.as_ref() == Some(lock));
                }
                classify("PutItem (leader)", &error)
            }
            None => {
                let delete = self.client.delete_item().table_name(table);
                let answer = delete
                    .key(key, text(item::LEADER))
                    .condition_expression(condition)
                    .set_expression_attribute_names(Some(names))
                    .set_expression_attribute_values(values)
                    .send()
                    .await;
                let Err(error) = answer else { return Ok(true) };
                if let Some(DeleteItemError::ConditionalCheckFailedException(_)) =
                    error.as_service_error()
                {
                    return Ok(false);
                }
                classify("DeleteItem (leader)", &error)
            }
        };
        Err(failure.into())
    }
}
